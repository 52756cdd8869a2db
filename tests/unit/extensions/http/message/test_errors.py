import pytest

from contracts.errors import (
    FieldError,
    InternalError,
    NotAuthenticated,
    ServiceError,
    ServiceUnavailable,
    ValidationFailed,
)
from contracts.orders import OrderNotFound
from contracts.users import InvalidToken, OtherAuthorization, UserInactive
from extensions.http.message.errors import MalformedRequest, MethodNotAllowed, problem, problem_headers


def test_a_problem_has_the_members_of_rfc_9457_plus_code_and_request_id():
    assert problem(OrderNotFound(), "req-1", "/orders/1") == {
        "type": "urn:problem-type:order-suite:order-not-found",
        "title": "Order not found",
        "status": 404,
        "detail": "There is no order with this id.",
        "instance": "/orders/1",
        "code": "ORDER_NOT_FOUND",
        "request_id": "req-1",
    }


def test_invalid_fields_are_listed():
    body = problem(ValidationFailed.of([FieldError("items[0].quantity", "must be positive")]), "r", "/")
    assert body["errors"] == [{"field": "items[0].quantity", "message": "must be positive"}]


def test_a_malformed_request_names_request_as_the_field():
    body = problem(MalformedRequest("The Host header is missing."), "r", "/")
    assert (body["code"], body["detail"]) == ("VALIDATION_ERROR", "The Host header is missing.")
    assert body["errors"] == [{"field": "request", "message": "The Host header is missing."}]


@pytest.mark.parametrize("error", [InternalError("SELECT * FROM secrets"), ServiceError("Traceback", ["x"])])
def test_an_internal_error_never_reveals_its_cause(error):
    body = problem(error, "r", "/")
    assert body["detail"] == "Something went wrong on our side."
    assert "errors" not in body


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        (NotAuthenticated(), {"WWW-Authenticate": "Bearer"}),
        (
            InvalidToken("the client has sent this"),
            {"WWW-Authenticate": f'Bearer error="invalid_token", error_description="{InvalidToken.detail}"'},
        ),
        (OtherAuthorization(), {"WWW-Authenticate": "Bearer"}),
        (UserInactive(), {}),
        (MethodNotAllowed(["GET", "HEAD"]), {"Allow": "GET, HEAD"}),
        (ServiceUnavailable(), {"Retry-After": "1"}),
        (ServiceUnavailable(retry_after=7), {"Retry-After": "7"}),
    ],
)
def test_headers_tell_the_client_what_to_do_next(error, headers):
    assert problem_headers(error) == {"Content-Type": "application/problem+json"} | headers
