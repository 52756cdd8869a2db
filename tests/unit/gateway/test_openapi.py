"""The OpenAPI document is valid and complete, and its examples match its schemas."""

import re
import tomllib
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from contracts.base import Request
from contracts.events import EVENTS
from contracts.examples import EXAMPLES
from extensions.http.message.request import Access
from extensions.http.openapi.document import document
from extensions.http.routing.route import route, routes_of
from gateway.routes.docs import INFO, PAGES, VERSION
from gateway.service import GatewayService

ROOT = Path(__file__).resolve().parents[3]
DOCUMENT = document(GatewayService, INFO)
SCHEMAS = DOCUMENT["components"]["schemas"]
OPERATIONS = {
    operation["operationId"]: operation for methods in DOCUMENT["paths"].values() for operation in methods.values()
}


def statuses(operation):
    return {int(status) for status in operation["responses"]}


def response_of(reference):
    return DOCUMENT["components"]["responses"][reference["$ref"].rpartition("/")[2]]


def codes_of(reference):
    """The error codes of a response, by its reference; empty if there is no such response."""
    if reference is None:
        return []
    (content,) = response_of(reference)["content"].values()
    return content["schema"]["properties"]["code"]["enum"]


def test_the_document_is_valid_openapi_3_1():
    assert DOCUMENT["openapi"].startswith("3.1.")
    validate(DOCUMENT)


def test_the_version_is_that_of_the_suite():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION


def test_the_document_has_exactly_the_paths_of_the_routes():
    declared = {
        (path, one.method.lower()) for one in routes_of(GatewayService).values() for path in (one.path, *one.aliases)
    }
    assert declared == {(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert len(OPERATIONS) == len(declared)


def test_aliases_name_their_main_path():
    aliases = {name: operation["x-alias-of"] for name, operation in OPERATIONS.items() if "x-alias-of" in operation}
    assert len(aliases) == sum(len(one.aliases) for one in routes_of(GatewayService).values())
    for name, original in aliases.items():
        assert OPERATIONS[name]["responses"] == OPERATIONS[original]["responses"]
        assert OPERATIONS[name]["tags"] == ["aliases"]


@pytest.mark.parametrize("model", EXAMPLES, ids=lambda model: model.__name__)
def test_examples_match_their_models(model):
    example = EXAMPLES[model]
    if issubclass(model, Request):
        model.parse(example)
    else:
        assert model.model_validate(example).to_dict() == example
    resolved = {"$ref": f"#/components/schemas/{model.__name__}", "components": {"schemas": SCHEMAS}}
    Draft202012Validator(resolved).validate(example)


def test_every_example_is_shown():
    text = str(DOCUMENT)
    assert [model.__name__ for model, example in EXAMPLES.items() if str(example) not in text] == []


def test_every_body_and_response_has_an_example():
    for name, operation in OPERATIONS.items():
        found = [operation["requestBody"]] if "requestBody" in operation else []
        found += [answer for answer in operation["responses"].values() if "content" in answer]
        for content in (content for one in found for content in one["content"].values()):
            model = content["schema"].get("$ref", "").rpartition("/")[2]
            advice = f"{name}: add an example of {model} to EXAMPLES in contracts/examples.py"
            assert "example" in content or operation["tags"][0] in {"docs", "openapi"}, advice


def test_bodies_refuse_unknown_fields():
    bodies = [operation["requestBody"] for operation in OPERATIONS.values() if "requestBody" in operation]
    parsed = [body["content"]["application/json"] for body in bodies if "application/json" in body["content"]]
    names = {content["schema"]["$ref"].rpartition("/")[2] for content in parsed}
    assert all(SCHEMAS[name]["additionalProperties"] is False for name in names | {"NewOrderItem"})


def test_money_is_a_string_with_a_pattern_and_ids_and_times_have_formats():
    for name, schema in SCHEMAS.items():
        for field, kind in schema.get("properties", {}).items():
            options = kind.get("anyOf", [kind])
            if field in {"price", "amount", "total_amount", "line_total", "price_snapshot"}:
                assert re.fullmatch(options[0]["pattern"], "149.90"), (name, field)
                assert not re.fullmatch(options[0]["pattern"], "1e3"), (name, field)
            if field == "id" or field in {"order_id", "user_id", "product_id"}:
                assert options[0]["format"] == "uuid", (name, field)
            if field.endswith("_at") or field == "at":
                assert options[0]["format"] == "date-time", (name, field)


def test_parameters_and_responses_are_derived_from_the_declaration():
    always = {400, 406, 500, 503, 504}
    assert statuses(OPERATIONS["live"]) == {200, *always}
    common, body = {429, *always}, {408, 413, 415}
    assert statuses(OPERATIONS["get_order"]) == {200, 304, 401, 403, 404, 412, *common}
    assert statuses(OPERATIONS["update_product"]) == {200, 401, 403, 404, 409, 412, *common, *body}
    assert statuses(OPERATIONS["logout"]) == {204, 401, *common, *body}
    assert statuses(OPERATIONS["create_product"]) == {201, 401, 403, 409, 422, *common, *body}
    assert statuses(OPERATIONS["create_stock"]) >= {200, 201}
    keys = {name for name, one in OPERATIONS.items() if {"$ref": "#/components/parameters/IdempotencyKey"} in
            one.get("parameters", ())}  # fmt: skip
    assert keys >= {"create_order", "register", "create_stock", "adjust_stock", "create_product"}
    assert "get_order" not in keys


def test_roles_are_stated():
    assert OPERATIONS["login"]["security"] == []
    assert OPERATIONS["get_product"]["security"] == [{}, {"bearer": []}]
    assert OPERATIONS["get_order"]["security"] == [{"bearer": []}]
    assert OPERATIONS["ship_order"]["security"] == [{"bearer": ["admin"]}]


@pytest.mark.parametrize("name", OPERATIONS)
def test_routes_that_read_a_token_document_all_token_errors(name):
    operation = OPERATIONS[name]
    codes = {code for status in ("401", "403") for code in codes_of(operation["responses"].get(status))}
    ends = {"INVALID_TOKEN", "TOKEN_REVOKED", "USER_INACTIVE"}
    assert ends <= codes if operation["x-access"] != "anyone" else "NOT_AUTHENTICATED" not in codes


def test_a_new_route_is_documented_from_its_declaration():
    class Service:
        @route("GET", "/parcels/{parcel_id}", access=Access.ADMIN)
        def get_parcel(self, request, parcel_id):
            """Show one parcel.

            Only those that left.
            """

    operation = document(Service, INFO)["paths"]["/parcels/{parcel_id}"]["get"]
    assert operation["summary"] == "Show one parcel"
    assert operation["description"] == "Only those that left. Needs the access token of an administrator."
    assert (operation["operationId"], operation["tags"]) == ("get_parcel", ["parcels"])
    assert [one.get("name", one.get("$ref")) for one in operation["parameters"]] == [
        "parcel_id",
        "#/components/parameters/IfNoneMatch",
    ]


def test_lists_are_paginated_and_document_the_link_header():
    answer = OPERATIONS["list_orders"]["responses"]["200"]
    assert answer["content"]["application/json"]["schema"]["$ref"].endswith("/OrderPage")
    assert "Link" in answer["headers"]
    assert SCHEMAS["OrderPage"]["required"] == ["items", "next_cursor"]


def test_every_event_that_an_endpoint_can_receive_is_described():
    names = SCHEMAS["CreateWebhook"]["properties"]["events"]["items"]["enum"]
    assert set(DOCUMENT["webhooks"]) == {name for name in names if "*" not in name}
    for name, item in DOCUMENT["webhooks"].items():
        content = item["post"]["requestBody"]["content"]["application/json"]
        assert content["example"]["type"] == name
        Draft202012Validator({**content["schema"], "components": {"schemas": SCHEMAS}}).validate(content["example"])
        event = EVENTS[name].model_validate(content["example"]["data"])
        assert event.model_dump(mode="json", exclude_none=True) == content["example"]["data"]


def test_created_resources_link_to_their_operations():
    links = OPERATIONS["create_order"]["responses"]["201"]["links"]
    assert links["cancel_order"]["parameters"] == {"order_id": "$response.body#/id"}
    assert {link["operationId"] for link in links.values()} <= set(OPERATIONS)


def test_the_page_loads_nothing_from_other_hosts():
    named = re.findall(r'(?:src|href)="([^"]+)"', (PAGES / "docs.html").read_text())
    assert {name for name in named if not name.startswith("data:")} <= set(DOCUMENT["paths"])
    assert "//" not in (PAGES / "docs.html").read_text().replace("<!doctype html>", "")


def test_the_effects_of_route_flags_are_documented():
    def taken(name):
        return {one.get("$ref", "").rpartition("/")[2] for one in OPERATIONS[name]["parameters"]}

    def sent(name, status):
        return set(OPERATIONS[name]["responses"][status]["headers"])

    assert "IfNoneMatch" in taken("get_order")
    assert "IfMatch" in taken("update_product")
    assert "ETag" in sent("get_order", "200") & sent("get_order", "304") & sent("update_product", "200")
    assert "content" not in OPERATIONS["get_order"]["responses"]["304"]
    assert "Idempotent-Replayed" in sent("create_order", "201")
    assert "RateLimit" in sent("list_orders", "200")
    assert not {"ETag", "RateLimit"} & sent("live", "200")


def test_headers_of_error_responses_are_documented():
    def headers_of(name, status):
        return set(response_of(OPERATIONS[name]["responses"][status])["headers"])

    for name, operation in OPERATIONS.items():
        for status in operation["responses"]:
            if status >= "400":
                assert headers_of(name, status) >= {"X-Request-ID", "RateLimit", "RateLimit-Policy"}
    # The first request is still running: retry in a second.
    assert "Retry-After" in headers_of("adjust_stock", "409") & headers_of("create_order", "409")
    assert "Retry-After" not in headers_of("set_stock", "409") | headers_of("create_order", "422")
    repeated = {
        (name, status)
        for name, operation in OPERATIONS.items()
        for status in operation["responses"]
        if status >= "400" and "Idempotent-Replayed" in headers_of(name, status) and "x-alias-of" not in operation
    }
    assert repeated == {
        ("register", "409"),
        ("register", "422"),
        ("create_webhook", "409"),
        *((name, status) for name in ("test_webhook", "replay_events", "retry_delivery") for status in ("404", "409")),
        ("rotate_webhook_secret", "404"),
        ("create_product", "409"),
        ("create_order", "409"),
        ("create_order", "422"),
        ("create_stock", "409"),
        ("create_stock", "422"),
        ("adjust_stock", "404"),
        ("adjust_stock", "409"),
        ("cancel_order", "404"),
        ("cancel_order", "409"),
        ("ship_order", "404"),
        ("ship_order", "409"),
        ("deliver_order", "404"),
        ("deliver_order", "409"),
        ("refund_payment", "404"),
        ("refund_payment", "409"),
        ("mark_read", "404"),
        ("replay_dead_letter", "404"),
        ("replay_dead_letter", "409"),
    }


def test_every_error_code_is_in_the_list():
    documented = set(SCHEMAS["Problem"]["properties"]["code"]["enum"])
    contract = """VALIDATION_ERROR MALFORMED_JSON NOT_AUTHENTICATED INVALID_CREDENTIALS INVALID_TOKEN TOKEN_REVOKED
        PERMISSION_DENIED USER_INACTIVE NOT_FOUND METHOD_NOT_ALLOWED NOT_ACCEPTABLE REQUEST_TIMEOUT USER_ALREADY_EXISTS
        SKU_ALREADY_EXISTS PRICE_CHANGED INVALID_STATE STOCK_RESERVED IDEMPOTENCY_KEY_IN_USE PRECONDITION_FAILED
        PAYLOAD_TOO_LARGE UNSUPPORTED_MEDIA_TYPE IDEMPOTENCY_KEY_REUSED PRODUCT_UNAVAILABLE WEAK_PASSWORD RATE_LIMITED
        INTERNAL_ERROR SERVICE_UNAVAILABLE UPSTREAM_TIMEOUT ALREADY_COMPLETED EMAIL_NOT_VERIFIED"""
    assert set(contract.split()) <= documented
    assert {code for code in documented - set(contract.split()) if not code.endswith("_NOT_FOUND")} == set()


def schemas_within(part):
    """Yield every JSON object within a part of the document."""
    if isinstance(part, dict):
        yield part
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from schemas_within(inner)


def test_the_bounds_of_a_list_are_those_of_its_items():
    """With at_most() before the Field in an annotation, Pydantic does not know that it is a list."""
    lists = [one for one in schemas_within(DOCUMENT) if one.get("type") == "array"]
    assert len(lists) > 10
    assert not [one for one in lists if one.keys() & {"minLength", "maxLength"}]
