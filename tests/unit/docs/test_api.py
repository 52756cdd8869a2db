"""The committed description of the API agrees with the code, and the changelog announces every breaking change."""

import json
import re
from copy import deepcopy

import pytest

from docs import generate_api
from docs.breaking_changes import Change, incompatible, unannounced

ROOT = generate_api.HERE.parent
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
GENERATED = generate_api.generate()
NOW = json.loads(GENERATED["openapi.json"])
RELEASED = json.loads(generate_api.RELEASED.read_text())


@pytest.mark.parametrize("name", GENERATED)
def test_the_committed_file_is_up_to_date(name):
    path = generate_api.HERE / name
    assert path.exists(), f"{path} is missing: run `make docs`"
    assert path.read_text() == GENERATED[name], f"{path} is out of date: run `make docs` and commit what changed"


def test_what_breaks_clients_of_the_released_api_is_announced():
    missing = unannounced(incompatible(RELEASED, NOW), CHANGELOG)
    hint = 'Undo these changes, or announce them in CHANGELOG.md, under "## Unreleased", "### Breaking", named as here:'
    assert missing == [], "\n".join([hint, *(f"- `{one.operation}` `{one.subject}` {one.what}" for one in missing)])


def test_the_released_api_is_that_of_the_newest_release():
    """The API is compared with the last release; only `make release-api` changes openapi-released.json."""
    newest = re.search(r"^## (\d+\.\d+\.\d+)", CHANGELOG, re.MULTILINE)[1]
    assert RELEASED["info"]["version"] == newest


# Tests of the comparison itself


def schema(document, name):
    return document["components"]["schemas"][name]


def operation(document, method="post", path="/orders"):
    return document["paths"][path][method]


def drop(container, key):
    del container[key]


BREAKING = {
    "POST /orders": lambda d: drop(d["paths"]["/orders"], "post"),
    "GET /orders/all": lambda d: drop(d["paths"], "/orders/all"),
    "GET /orders/{order_id}: 200.cancel_reason": lambda d: drop(schema(d, "OrderView")["properties"], "cancel_reason"),
    "GET /orders: 200.items[].total_amount": lambda d: drop(schema(d, "OrderView")["properties"], "total_amount"),
    "GET /orders/{order_id}: 200.version": lambda d: schema(d, "OrderView")["required"].remove("version"),
    "POST /orders: 201.status": lambda d: schema(d, "OrderStatus")["enum"].remove("SHIPPED"),
    "GET /orders: query status": lambda d: operation(d, "get")["parameters"][2]["schema"]["enum"].remove("CREATED"),
    "POST /products: body.description": lambda d: schema(d, "CreateProduct")["required"].append("description"),
    "POST /orders: body.items[].note": lambda d: (
        schema(d, "NewOrderItem")["properties"].update(note={"type": "string"}),
        schema(d, "NewOrderItem")["required"].append("note"),
    ),
    "POST /orders: body.total_amount": lambda d: drop(schema(d, "CreateOrder")["properties"], "total_amount"),
    "POST /orders: body.items[].quantity": lambda d: schema(d, "NewOrderItem")["properties"]["quantity"].update(
        maximum=10
    ),
    "POST /orders: body.items[].product_sku": lambda d: schema(d, "NewOrderItem")["properties"]["product_sku"][
        "anyOf"
    ].pop(),
    "GET /orders/{order_id}: 200.user_id": lambda d: schema(d, "OrderView")["properties"]["user_id"].update(
        type=["string", "null"]
    ),
    "GET /products/{product_id}: 200.price": lambda d: schema(d, "ProductView")["properties"]["price"].update(
        type="number"
    ),
    "PATCH /products/{product_id}: body.price": lambda d: schema(d, "UpdateProduct")["properties"]["price"].update(
        pattern="^[0-9]+$"
    ),
    "GET /products: query sort": lambda d: drop(operation(d, "get", "/products")["parameters"], -1),
    "GET /products: query shop": lambda d: operation(d, "get", "/products")["parameters"].append(
        {"name": "shop", "in": "query", "required": True, "schema": {"type": "string"}}
    ),
    "GET /products: access": lambda d: operation(d, "get", "/products").update({"x-access": "user"}),
    "POST /orders: operationId": lambda d: operation(d).update(operationId="place_order"),
    "POST /orders: 201": lambda d: drop(operation(d)["responses"], "201"),
    "POST /orders: 201 Location": lambda d: drop(operation(d)["responses"]["201"]["headers"], "Location"),
    "POST /orders: 409.code": lambda d: d["components"]["responses"]["IdempotencyKeyInUseOrPriceChangedOrItAgain"][
        "content"
    ]["application/problem+json"]["schema"]["properties"]["code"]["enum"].remove("PRICE_CHANGED"),
    "POST /orders/{order_id}/deliver: body": lambda d: operation(d, "post", "/orders/{order_id}/deliver").update(
        requestBody=operation(d)["requestBody"]
    ),
    "POST /orders/{order_id}/ship: body": lambda d: operation(d, "post", "/orders/{order_id}/ship")[
        "requestBody"
    ].update(required=True),
}
HARMLESS = {
    "a body that may be left out": lambda d: operation(d, "post", "/orders/{order_id}/deliver").update(
        requestBody=operation(d)["requestBody"] | {"required": False}
    ),
    "a new path": lambda d: d["paths"].update({"/parcels": d["paths"]["/orders"]}),
    "a new field of an answer": lambda d: (
        schema(d, "OrderView")["properties"].update(weight={"type": "integer"}),
        schema(d, "OrderView")["required"].append("weight"),
    ),
    "a new optional field of a body": lambda d: schema(d, "CreateOrder")["properties"].update(note={"type": "string"}),
    "a new optional parameter": lambda d: operation(d, "get")["parameters"].append(
        {"name": "shop", "in": "query", "schema": {"type": "string"}}
    ),
    "a wider bound": lambda d: schema(d, "NewOrderItem")["properties"]["quantity"].update(maximum=20_000),
    "a new code": lambda d: d["components"]["responses"]["IdempotencyKeyInUseOrPriceChangedOrItAgain"]["content"][
        "application/problem+json"
    ]["schema"]["properties"]["code"]["enum"].append("SHOP_CLOSED"),
    "other words": lambda d: operation(d).update(summary="Buy", description="Anything."),
    "less access needed": lambda d: operation(d, "get", "/inventory").update({"x-access": "user"}),
}


@pytest.mark.parametrize("expected", BREAKING)
def test_what_would_break_clients_is_found(expected):
    changed = deepcopy(NOW)
    BREAKING[expected](changed)
    assert expected in {str(change).rpartition(": ")[0] for change in incompatible(NOW, changed)}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_old_clients_can_ignore_is_allowed(name):
    changed = deepcopy(NOW)
    HARMLESS[name](changed)
    assert incompatible(NOW, changed) == []


def test_nothing_breaks_where_nothing_changed():
    assert incompatible(NOW, deepcopy(NOW)) == []


def test_a_change_is_announced_by_a_line_that_names_it():
    gone, field = Change("POST /orders", "", "is gone"), Change("GET /orders", "200.items[].status", "is gone")
    head = "# Changelog\n\n## Unreleased\n\n### Breaking\n\n"
    told = head + "- `POST /orders` is no more.\n- The answer of `GET /orders` has\n  no `200.items[].status`.\n"
    assert unannounced([gone, field], told + "\n## 0.1.0\n") == []
    assert unannounced([gone, field], head + "- `POST /orders` is no more; `GET /orders` neither.\n") == [field]
    elsewhere = told.replace("## Unreleased", "## 0.0.9")
    assert unannounced([gone, field], elsewhere) == [gone, field]
    assert unannounced([gone], told.replace("### Breaking", "### Changed")) == [gone]
