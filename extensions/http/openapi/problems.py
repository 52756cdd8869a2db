"""What the OpenAPI document says of errors: which ones a route answers with, and how each looks.

An error is derived where it follows from the route's declaration, and stands in its `errors` where not.
"""

from collections.abc import Iterable

from contracts.errors import (
    NOT_STORED,
    FieldError,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    InternalError,
    NotAuthenticated,
    PermissionDenied,
    PreconditionFailed,
    RateLimited,
    ServiceError,
    ServiceUnavailable,
    UpstreamTimeout,
    ValidationFailed,
)
from contracts.users import InvalidToken, TokenRevoked, UserInactive
from extensions.http.message.errors import (
    PROBLEM_TYPE,
    MalformedJson,
    MethodNotAllowed,
    NotAcceptable,
    PathNotFound,
    PayloadTooLarge,
    RequestTimeout,
    UnsupportedMediaType,
    problem,
)
from extensions.http.message.request import Access
from extensions.http.openapi.schemas import Schema
from extensions.http.routing.route import Route

ERRORS_OF_A_TOKEN = (InvalidToken, TokenRevoked, UserInactive)
ERRORS_BY_ACCESS: dict[Access, tuple[type[ServiceError], ...]] = {
    Access.ANYONE: (),
    Access.OPTIONAL: ERRORS_OF_A_TOKEN,
    Access.USER: (NotAuthenticated, *ERRORS_OF_A_TOKEN),
    Access.ADMIN: (NotAuthenticated, *ERRORS_OF_A_TOKEN, PermissionDenied),
}
ERRORS_OF_A_BODY = (MalformedJson, RequestTimeout, PayloadTooLarge, UnsupportedMediaType)
ERRORS_OF_A_KEY = (IdempotencyKeyInUse, IdempotencyKeyReused)
# Every route reads a query, if only to refuse one; every route can meet a defect, and an end of its time.
ERRORS_OF_NO_ROUTE = (PathNotFound, MethodNotAllowed)
ERRORS_OF_ALL = (ValidationFailed, NotAcceptable, InternalError, ServiceUnavailable, UpstreamTimeout)

HEADERS = {
    "X-Request-ID": ("The caller's, if it sent one that is sane; it stands in every log line.", {"type": "string"}),
    "Location": ("The path of what was made.", {"type": "string"}),
    "Link": ('`<path>; rel="next"`: the next page, if there is one.', {"type": "string"}),
    "Retry-After": ("So many seconds to wait.", {"type": "integer", "minimum": 1}),
    "ETag": ("Tells this state of the resource from all others.", {"type": "string"}),
    "Idempotent-Replayed": ("`true` on an answer that was given before.", {"const": "true"}),
    "RateLimit": ("What is left of each limit that holds, if any does.", {"type": "string"}),
    "RateLimit-Policy": ("The limits that hold, if any do.", {"type": "string"}),
    "WWW-Authenticate": ("`Bearer`, and by RFC 6750 what is wrong with a token.", {"type": "string"}),
}
# Limits are counted before anything else is looked at, so that whatever is refused may say what is left of them.
HEADERS_OF_ALL = ("X-Request-ID", "RateLimit", "RateLimit-Policy")
ERROR_HEADERS = {
    401: ("WWW-Authenticate",),
    429: ("Retry-After",),
    503: ("Retry-After",),
}


def errors_of(route: Route) -> list[type[ServiceError]]:
    """Return every error that a route answers with, its own first; one of each code."""
    errors = [*route.errors, *ERRORS_BY_ACCESS[route.access]]
    if route.method not in {"GET", "DELETE"}:
        errors += ERRORS_OF_A_BODY
    if route.idempotent:
        errors += ERRORS_OF_A_KEY
    if route.conditional:
        errors.append(PreconditionFailed)
    if route.limited:
        errors.append(RateLimited)
    errors += ERRORS_OF_ALL
    return list({error.code: error for error in reversed(errors)}.values())[::-1]


def problems_of(route: Route) -> dict[int, tuple[str, Schema]]:
    """Return what a route refuses with: the name and the Response Object of each status."""
    found: dict[int, list[type[ServiceError]]] = {}
    for error in errors_of(route):
        found.setdefault(error.status, []).append(error)
    return {status: _problem_of(route, status, errors) for status, errors in sorted(found.items())}


def _problem_of(route: Route, status: int, errors: list[type[ServiceError]]) -> tuple[str, Schema]:
    errors = sorted(errors, key=lambda error: error.code)
    headers = [*HEADERS_OF_ALL, *ERROR_HEADERS.get(status, ())]
    if IdempotencyKeyInUse in errors:
        headers.append("Retry-After")
    name = "Or".join(error.code.title().replace("_", "") for error in errors)
    if _is_repeated(route, status):
        headers.append("Idempotent-Replayed")
        name += "OrItAgain"
    shape = {"properties": {"status": {"const": status}, "code": {"enum": [error.code for error in errors]}}}
    return name, {
        "description": "\n".join(f"- `{error.code}`: {error.detail}" for error in errors),
        "headers": header_references(headers),
        "content": {
            PROBLEM_TYPE: {
                "schema": {"allOf": [{"$ref": "#/components/schemas/Problem"}, shape]},
                "examples": {error.code: {"value": _problem_example(error)} for error in errors},
            }
        },
    }


def _is_repeated(route: Route, status: int) -> bool:
    """Tell whether a refusal is kept under its idempotency key: what the use case decides is, so its own errors are."""
    return route.idempotent and status not in NOT_STORED and any(error.status == status for error in route.errors)


def _problem_example(error: type[ServiceError]) -> Schema:
    wrong = ValidationFailed.field("items[0].quantity", "must be at least 1") if error is ValidationFailed else error()
    return problem(wrong, "019aac60-19f0-7a11-b2c3-d4e5f6071829", "/orders")


def problem_schema(codes: list[str]) -> Schema:
    field = {name: {"type": "string"} for name in FieldError.__dataclass_fields__}
    return {
        "type": "object",
        "description": "An error, as RFC 9457 has it. `code` is for programs, `detail` for people.",
        "required": ["type", "title", "status", "detail", "instance", "code", "request_id"],
        "properties": {
            "type": {"type": "string", "format": "uri"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "instance": {"type": "string"},
            "code": {"type": "string", "enum": codes},
            "request_id": {"type": "string"},
            "errors": {
                "type": "array",
                "description": "The fields that are wrong.",
                "items": {"type": "object", "required": list(field), "properties": field},
            },
        },
    }


def header_references(names: Iterable[str]) -> Schema:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
