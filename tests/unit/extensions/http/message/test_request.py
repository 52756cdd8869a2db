import json
import time
from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from contracts.base import Actor
from contracts.catalog import ProductFilter
from contracts.errors import NotAuthenticated, PermissionDenied, ValidationFailed
from contracts.inventory import SetStockLevel
from contracts.orders import CreateOrder, OrderFilter
from contracts.users import Credentials, InvalidToken, OtherAuthorization, Role
from contracts.validation import MAX_FIELD_ERRORS
from extensions.http.message.errors import MalformedJson, NotAcceptable, UnsupportedMediaType
from extensions.http.message.request import ANONYMOUS, Access, HttpRequest, bearer_token
from extensions.http.message.strict_json import parse_object
from extensions.observability.traces import Trace
from extensions.security.access_tokens import AccessToken
from tests.support import stated

ID = "0190a6b2-0000-7000-8000-000000000001"


def request(query="", path="/orders", **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpRequest("GET", path, query, named, Trace())


def token(*roles):
    return AccessToken(uuid4(), roles, datetime.now(UTC), datetime.now(UTC), "t")


def fields_of(refused):
    return [error.field for error in refused.value.errors]


class TestAuthentication:
    def test_a_route_for_anyone_ignores_the_token(self):
        sent = request(authorization="Bearer stale")
        sent.authenticate(Access.ANYONE, pytest.fail)
        assert sent.actor == ANONYMOUS

    def test_an_anonymous_caller_is_not_the_operator(self):
        sent = request()
        sent.authenticate(Access.OPTIONAL, pytest.fail)
        assert sent.actor.user_id is not None
        assert sent.actor.roles == ()

    @pytest.mark.parametrize("access", [Access.USER, Access.ADMIN])
    def test_a_missing_token_is_401(self, access):
        with pytest.raises(NotAuthenticated):
            request().authenticate(access, pytest.fail)

    @pytest.mark.parametrize("access", [Access.OPTIONAL, Access.USER, Access.ADMIN])
    def test_an_invalid_token_is_refused_wherever_a_token_is_read(self, access):
        def refuse(_token):
            raise InvalidToken

        with pytest.raises(InvalidToken):
            request(authorization="Bearer x").authenticate(access, refuse)

    def test_an_admin_route_requires_the_admin_role(self):
        with pytest.raises(PermissionDenied):
            request(authorization="Bearer x").authenticate(Access.ADMIN, lambda _: token(Role.CUSTOMER))
        request(authorization="Bearer x").authenticate(Access.ADMIN, lambda _: token(Role.CUSTOMER, Role.ADMIN))

    def test_the_actor_is_the_user_of_the_token(self):
        sent, known = request(authorization="bearer  abc "), token(Role.CUSTOMER)
        seen = []
        sent.authenticate(Access.USER, lambda text: seen.append(text) or known)
        assert seen == ["abc"]
        assert sent.actor == Actor(user_id=known.user_id, roles=("customer",))
        assert all(type(role) is str for role in sent.actor.roles)

    def test_the_id_of_the_caller_needs_a_token(self):
        sent, known = request(authorization="Bearer abc"), token(Role.CUSTOMER)
        with pytest.raises(NotAuthenticated):
            _ = sent.user_id
        sent.authenticate(Access.USER, lambda _: known)
        assert sent.user_id == known.user_id

    @pytest.mark.parametrize("header", ["Basic abc", "Bearer", "Bearer ", "abc"])
    def test_another_scheme_is_refused(self, header):
        with pytest.raises(OtherAuthorization):
            bearer_token(header)

    def test_no_header_is_no_token(self):
        assert bearer_token(None) is None
        assert bearer_token("") is None


class TestQuery:
    def test_strings_are_converted_to_the_types_of_the_model(self):
        sent = request("limit=50&only_active=false&sort=-price&min_price=1.50&search=G%C3%BCl+x")
        sent.read_query(ProductFilter)
        assert stated(sent.query) == {
            "limit": 50,
            "only_active": False,
            "sort": "-price",
            "min_price": "1.50",
            "search": "Gül x",
        }

    def test_defaults_are_not_passed_on(self):
        sent = request()
        sent.read_query(OrderFilter)
        assert sent.query == OrderFilter()
        assert stated(sent.query) == {}

    def test_ids_and_times_are_sent_in_one_spelling(self):
        sent = request(f"user_id={ID}&created_after=2026-01-31T08:30:00%2B03:00&status=CREATED")
        sent.read_query(OrderFilter)
        assert stated(sent.query) == {
            "user_id": ID,
            "created_after": "2026-01-31T05:30:00.000000Z",
            "status": "CREATED",
        }

    @pytest.mark.parametrize(
        ("query", "fields"),
        [
            ("limit=101", ["limit"]),
            ("limit=0", ["limit"]),
            ("limit=ten", ["limit"]),
            ("limit=", ["limit"]),
            ("limit=1.0", ["limit"]),
            ("limit=%D9%A5", ["limit"]),
            ("limit=5&limit=6", ["limit"]),
            ("status=NEW&user_id=7", ["status", "user_id"]),
            ("created_after=2026-01-31T08:30:00", ["created_after"]),
            ("colour=red", ["colour"]),
            ("limit=5&%ff=1", ["query"]),
            ("&".join(f"f{n}=1" for n in range(60)), ["query"]),
        ],
    )
    def test_every_invalid_field_is_named(self, query, fields):
        with pytest.raises(ValidationFailed) as refused:
            request(query).read_query(OrderFilter)
        assert fields_of(refused) == fields

    @pytest.mark.parametrize("value", ["True", "1", "yes", ""])
    def test_booleans_are_true_and_false(self, value):
        with pytest.raises(ValidationFailed) as refused:
            request(f"only_active={value}").read_query(ProductFilter)
        assert fields_of(refused) == ["only_active"]

    def test_the_next_page_keeps_the_filters(self):
        sent = request("status=CREATED&cursor=old&limit=2", path="/orders/all")
        assert sent.next_page("a b=") == "/orders/all?status=CREATED&limit=2&cursor=a+b%3D"


class TestBody:
    def test_is_sent_without_defaults(self):
        sent = request()
        sent.read_body(CreateOrder, f'{{"items": [{{"product_id": "{ID}", "quantity": 2}}]}}'.encode())
        assert stated(sent.body) == {"items": [{"product_id": ID, "quantity": 2}]}

    def test_every_invalid_field_is_named(self):
        body = b'{"items": [{"product_id": "x", "quantity": 0, "colour": "red"}], "total_amount": 10.0}'
        with pytest.raises(ValidationFailed) as refused:
            request().read_body(CreateOrder, body)
        assert set(fields_of(refused)) == {
            "items[0].product_id",
            "items[0].quantity",
            "items[0].colour",
            "total_amount",
        }

    @pytest.mark.parametrize("value", ['"5"', "5.5", "true", "1e999", "null"])
    def test_numbers_are_not_coerced(self, value):
        with pytest.raises(ValidationFailed):
            request().read_body(SetStockLevel, f'{{"quantity": {value}}}'.encode())

    def test_an_empty_body_is_malformed(self):
        with pytest.raises(MalformedJson):
            request().read_body(SetStockLevel, b"")

    @pytest.mark.parametrize(
        "kind",
        [
            "application/json",
            "APPLICATION/JSON",
            "application/json; charset=utf-8",
            'application/json;charset="UTF-8"',
            "application/merge-patch+json",
        ],
    )
    def test_json_types_are_accepted(self, kind):
        request(content_type=kind).check_body_type()

    @pytest.mark.parametrize(
        "kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1", "json"]
    )
    def test_other_types_are_415(self, kind):
        with pytest.raises(UnsupportedMediaType):
            request(content_type=kind).check_body_type()

    def test_a_compressed_body_is_415(self):
        with pytest.raises(UnsupportedMediaType, match="Content-Encoding"):
            request(content_type="application/json", content_encoding="gzip").check_body_type()
        request(content_type="application/json", content_encoding="Identity").check_body_type()

    @pytest.mark.parametrize(
        ("headers", "has_body"),
        [
            ({}, False),
            ({"content_length": "0"}, False),
            ({"content_length": "00"}, False),
            ({"content_length": "12"}, True),
            ({"transfer_encoding": "chunked"}, True),
        ],
    )
    def test_a_body_is_announced_by_the_headers(self, headers, has_body):
        assert request(**headers).has_body is has_body


class TestAccept:
    @pytest.mark.parametrize(
        "accept",
        ["", "*/*", "application/json", "text/html, application/*;q=0.8", "text/html,*/*; q=0.1", "Application/JSON"],
    )
    def test_json_is_acceptable(self, accept):
        request(accept=accept).check_accept()

    @pytest.mark.parametrize("accept", ["text/html", "application/xml, text/*", "application/json;q=0", "*/*; q=0.0"])
    def test_json_is_not_acceptable(self, accept):
        with pytest.raises(NotAcceptable):
            request(accept=accept).check_accept()


class TestPathAndKey:
    @pytest.mark.parametrize("version", ["1", "4", "7"])
    def test_any_uuid_version_is_accepted(self, version):
        sent = request()
        sent.read_arguments({"order_id": f"0190A6B2-0000-{version}000-8000-000000000001"})
        assert sent.arguments == {"order_id": UUID(f"0190a6b2-0000-{version}000-8000-000000000001")}

    def test_an_argument_that_is_no_uuid_is_named(self):
        with pytest.raises(ValidationFailed) as refused:
            request().read_arguments({"order_id": "42"})
        assert fields_of(refused) == ["order_id"]

    @pytest.mark.parametrize("key", ["a", "x" * 255, "{}!~"])
    def test_idempotency_keys(self, key):
        sent = request(idempotency_key=key)
        sent.read_idempotency_key()
        assert sent.idempotency_key == key

    def test_without_the_header_there_is_no_key(self):
        sent = request()
        sent.read_idempotency_key()
        assert sent.idempotency_key is None

    @pytest.mark.parametrize("key", ["", "x" * 256, "two words", "gül", "a\tb"])
    def test_invalid_keys_are_refused(self, key):
        with pytest.raises(ValidationFailed) as refused:
            request(idempotency_key=key).read_idempotency_key()
        assert fields_of(refused) == ["Idempotency-Key"]


WIDE = {f"field{number}": 1 for number in range(4000)}
LINE = {"product_id": ID, "quantity": 1}


class TestRubbish:
    """Whatever a body of the allowed size contains, its refusal costs little more than parsing it."""

    @pytest.mark.parametrize(
        ("model", "body", "first"),
        [
            (Credentials, WIDE, "field0"),
            (Credentials, {"email": "a@example.com", "password": "long enough"} | WIDE, "field0"),
            (CreateOrder, {"items": [LINE | {f"x{n}": n for n in range(80)}] * 100}, "items[0].x0"),
            (CreateOrder, {"items": [LINE] * 99 + [WIDE]}, "items[99].field0"),
        ],
        ids=["top", "valid apart from them", "in each line", "in the last line"],
    )
    def test_thousands_of_unknown_fields_are_refused_before_each_becomes_an_error(self, model, body, first):
        raw = json.dumps(body).encode()
        parsing = min(cost_of(lambda: parse_object(raw)) for _ in range(5))
        with pytest.raises(ValidationFailed) as refused:
            request().read_body(model, raw)
        assert fields_of(refused)[0] == first
        assert len(refused.value.errors) == MAX_FIELD_ERRORS
        assert {error.message for error in refused.value.errors} == {"is not a known field"}
        refusing = min(cost_of(lambda: request().read_body(model, raw)) for _ in range(5))
        assert refusing < 3 * parsing + 0.001  # with an error for each field it is twenty times as much

    def test_a_few_unknown_fields_are_named_beside_the_other_errors(self):
        raw = json.dumps({"email": 1, "colour": "red", "padding": "x" * 2000}).encode()
        with pytest.raises(ValidationFailed) as refused:
            request().read_body(Credentials, raw)
        assert set(fields_of(refused)) == {"email", "password", "colour", "padding"}


def cost_of(call):
    """The processor time of a call, in seconds."""
    began = time.process_time()
    with suppress(ValidationFailed):
        call()
    return time.process_time() - began
