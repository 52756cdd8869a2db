"""The routes of the API are those of docs/openapi.json, and agree with their handlers.

docs/openapi.json is generated (`make docs`) and committed. So a new, changed or lost route shows in the diff of a
change. tests/unit/docs/test_api.py fails if a change breaks clients of the last release.
"""

import inspect
import json
import re
from pathlib import Path
from typing import Any, get_args, get_type_hints
from uuid import UUID

import pytest

from extensions.http.openapi.schemas import query_fields
from extensions.http.routing.declaration import NoFields
from extensions.http.routing.route import routes_of
from extensions.http.routing.route_table import RouteTable
from gateway.service import GatewayService
from tests.e2e.access import CASES

HANDLERS = {declaration: name for name, declaration in routes_of(GatewayService).items()}
ROUTES = list(HANDLERS)
BY_NAME = {(route.method, route.path): route for route in ROUTES}
# A session is no thing that is created once, and its tokens are never stored. Nor are those of mails and the passwords
# that they set.
SESSIONS = {"/users/login", "/users/logout", "/users/refresh-token", "/users/verify-token", "/session"}
MAILS = {
    "/users/password-reset",
    "/users/password-reset/confirm",
    "/users/verify-email",
    "/users/me/verification-email",
}
TABLE = RouteTable(ROUTES)
DOCUMENT = json.loads((Path(__file__).resolve().parents[3] / "docs/openapi.json").read_text())
OPERATIONS = {
    (method.upper(), path): operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
LISTED = {route: operation for route, operation in OPERATIONS.items() if "x-alias-of" not in operation}
AGREE = "undo the change, or run `make docs` and commit docs/openapi.json"


def test_the_routes_are_those_of_the_document():
    lost = [
        f"docs/openapi.json has {method} {path}, which no route declares"
        for method, path in LISTED.keys() - BY_NAME.keys()
    ]
    new = [f"docs/openapi.json lacks {method} {path}" for method, path in BY_NAME.keys() - LISTED.keys()]
    assert not lost + new, "\n".join([*lost, *new, f"Restore the route, or {AGREE}"])


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_a_route_is_declared_as_in_the_document(route):
    """Who may call it, its success statuses, its aliases, its body and the fields of its query."""
    operation = LISTED.get((route.method, route.path))
    assert operation, f"docs/openapi.json lacks {route.method} {route.path}: run `make docs`"
    aliases = [
        path
        for (method, path), other in OPERATIONS.items()
        if method == route.method and other.get("x-alias-of") == operation["operationId"]
    ]
    body = operation.get("requestBody", {"content": {}})["content"].get("application/json", {"schema": {"$ref": ""}})
    documented = {
        "handler": operation["operationId"],
        "access": operation["x-access"],
        "statuses": {int(status) for status in operation["responses"] if status.startswith("2")},
        "aliases": aliases,
        "body": body["schema"]["$ref"].rpartition("/")[2],
        "query": [one["name"] for one in operation.get("parameters", ()) if one.get("in") == "query"],
    }
    declared = {
        "handler": HANDLERS[route],
        "access": str(route.access),
        "statuses": {route.status, *route.other_statuses},
        "aliases": list(route.aliases),
        "body": route.body.__name__ if route.body else "",
        "query": list(query_fields(route.query)),
    }
    assert declared == documented, f"{route.method} {route.path} differs from docs/openapi.json: {AGREE}"


def test_a_created_resource_is_the_usual_success():
    usual = {(route.path, route.status) for route in ROUTES if route.other_statuses}
    assert usual == {("/inventory", 201), ("/products/import", 200), ("/inventory/import", 200)}


def test_every_route_has_an_access_case():
    missing = set(HANDLERS.values()) - set(CASES)
    assert missing == set(), "add the roles that may call the route to CASES in tests/e2e/access.py"


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_path_works_with_and_without_a_trailing_slash(route):
    for known in (route.path, *route.aliases):
        for written in (known, known + "/"):
            found, _ = TABLE.match(route.method, written.format(**dict.fromkeys(_parameters(known), "1")))
            assert found is route


def _parameters(path):
    return [segment.strip("{}") for segment in path.split("/") if segment.startswith("{")]


@pytest.mark.parametrize("route", ROUTES, ids=HANDLERS.get)
def test_handlers_have_the_parameters_of_their_path(route):
    parameters = list(inspect.signature(getattr(GatewayService, HANDLERS[route])).parameters)
    assert parameters[2:] == _parameters(route.path)


def test_the_name_of_a_body_names_one_model():
    models = {route.body for route in ROUTES if route.body is not None}
    assert len({model.__name__ for model in models}) == len(models)
    assert {model.__module__.partition(".")[0] for model in models} == {"contracts"}


@pytest.mark.parametrize("route", ROUTES, ids=HANDLERS.get)
def test_handler_types_match_the_route_declaration(route):
    hints = get_type_hints(getattr(GatewayService, HANDLERS[route]))
    request = next(kind for name, kind in hints.items() if name in {"request", "_request"})
    body, query = (*get_args(request), Any, Any)[:2]
    assert body in ({Any, type(None)} if route.body is None else {route.body})
    assert query is (Any if route.query is NoFields else route.query)
    assert {hints[name] for name in _parameters(route.path)} <= {UUID}


def test_every_post_takes_an_idempotency_key():
    for route in ROUTES:
        takes_key = route.method == "POST" and route.path not in SESSIONS | MAILS
        assert route.idempotent == takes_key, f"{route.method} {route.path}: idempotent=True?"
    assert {route.method for route in ROUTES if route.idempotent} == {"POST"}


def test_only_probes_bypass_overload_limits_and_share_their_responses():
    assert {path for (_, path), route in BY_NAME.items() if not route.sheds_load} == {"/health/live", "/health/ready"}


def test_a_route_names_the_service_that_it_always_calls():
    """Those without a service respond from a cache or from this process, or call several services."""
    for route, handler in HANDLERS.items():
        source = inspect.getsource(getattr(GatewayService, handler))
        called, named = set(re.findall(r"self\.services\.(\w+)\.", source)), route.service.partition(".")[0]
        where = f"@route of {route.method} {route.path}"
        if len(called) == 1 and "_cache." not in source:
            assert named in called, f'{where}: it always calls {", ".join(called)}: add service="{min(called)}"'
        assert not called or named in called | {""}, f"{where}: service is {named}, but it calls {called}"
    without = {(route.method, route.path) for route in ROUTES if not route.service}
    assert without >= {("GET", "/orders/{order_id}"), ("GET", "/products/{product_id}"), ("GET", "/health/ready")}
    assert not {path for _, path in without if path.startswith(("/payments", "/notifications", "/inventory"))}
