"""The routes of the API as the contract lists them: path, required role, success status, alias paths."""

import inspect
import re
from typing import Any, get_args, get_type_hints
from uuid import UUID

import pytest

from contracts import catalog, inventory, notifications, operations, orders, payments, users
from contracts.base import PageRequest
from extensions.http.routing.declaration import NoFields
from extensions.http.routing.route import routes_of
from extensions.http.routing.route_table import RouteTable
from gateway.service import GatewayService
from tests.e2e.access import CASES

CONTRACT = """
POST  /users/register                      anyone   201
POST  /users/login                         anyone   200
POST  /users/refresh-token                 anyone   200
POST  /users/logout                        user     204
POST  /users/verify-token                  anyone   200
GET   /users/me                            user     200  /users/user-profile
GET   /users                               admin    200
PATCH /users/{user_id}                     admin    200
GET   /.well-known/jwks.json               anyone   200
GET   /products                            optional 200  /products/all
GET   /products/{product_id}               optional 200
POST  /products                            admin    201  /products/create
PUT   /products/{product_id}               admin    200  /products/{product_id}/update
PATCH /products/{product_id}               admin    200
POST  /orders                              user     201  /orders/create-order
GET   /orders                              user     200  /orders/all
GET   /orders/{order_id}                   user     200
GET   /orders/{order_id}/timeline          user     200
POST  /orders/{order_id}/cancel            user     202
POST  /orders/{order_id}/ship              admin    200
POST  /orders/{order_id}/deliver           admin    200
GET   /inventory                           admin    200  /inventory/all
GET   /inventory/{product_id}              admin    200
POST  /inventory                           admin    201  /inventory/create
PUT   /inventory/{product_id}              admin    200
POST  /inventory/{product_id}/adjustments  admin    201
GET   /inventory/{product_id}/movements    admin    200
GET   /payments                            user     200  /payments/all
GET   /payments/{payment_id}               user     200
GET   /payments/order/{order_id}           user     200
GET   /notifications                       user     200
POST  /notifications/{notification_id}/read user    204
GET   /admin/sagas                         admin    200
GET   /admin/dead-letters                  admin    200
POST  /admin/dead-letters/{dead_letter_id}/replay admin 202
DELETE /admin/dead-letters/{dead_letter_id} admin 204
GET   /admin/dead-letters/groups           admin    200
POST  /admin/dead-letters/replay           admin    200
POST  /admin/dead-letters/discard          admin    200
GET   /admin/refused-events                admin    200
GET   /admin/consistency                   admin    200
GET   /health/live                         anyone   200
GET   /health/ready                        anyone   200
GET   /openapi.json                        anyone   200
GET   /docs                                anyone   200
GET   /docs/docs.js                        anyone   200
GET   /docs/swagger-ui.js                  anyone   200
GET   /docs/docs.css                       anyone   200
"""

HANDLERS = {declaration: name for name, declaration in routes_of(GatewayService).items()}
ROUTES = list(HANDLERS)
BY_NAME = {(route.method, route.path): route for route in ROUTES}
TABLE = RouteTable(ROUTES)
EXPECTED = [line.split() for line in CONTRACT.strip().splitlines()]


@pytest.mark.parametrize("line", EXPECTED, ids=lambda line: f"{line[0]} {line[1]}")
def test_every_route_of_the_contract_is_declared(line):
    method, path, access, status, *aliases = line
    route = BY_NAME[method, path]
    assert (route.access, route.status, list(route.aliases)) == (access, int(status), aliases)


def test_no_other_route_is_declared():
    declared, listed = set(BY_NAME), {(method, path) for method, path, *_ in EXPECTED}
    assert declared - listed == set(), "add the route to CONTRACT, above in this file"
    assert listed - declared == set(), "the gateway no longer has these routes"
    assert len(EXPECTED) == len(listed)


def test_every_route_has_an_access_case():
    missing = set(HANDLERS.values()) - set(CASES)
    assert missing == set(), "add the roles that may call the route to CASES in tests/e2e/access.py"


@pytest.mark.parametrize("line", EXPECTED, ids=lambda line: f"{line[0]} {line[1]}")
def test_every_path_works_with_and_without_a_trailing_slash(line):
    method, path, _, _, *aliases = line
    for known in (path, *aliases):
        for written in (known, known + "/"):
            found, _ = TABLE.match(method, written.format(**dict.fromkeys(_parameters(known), "1")))
            assert found is BY_NAME[method, path]


def _parameters(path):
    return [segment.strip("{}") for segment in path.split("/") if segment.startswith("{")]


@pytest.mark.parametrize("route", ROUTES, ids=HANDLERS.get)
def test_handlers_have_the_parameters_of_their_path(route):
    parameters = list(inspect.signature(getattr(GatewayService, HANDLERS[route])).parameters)
    assert parameters[2:] == _parameters(route.path)


def test_bodies_and_queries_use_the_models_of_the_contract():
    bodies = {name: route.body for name, route in BY_NAME.items() if route.body is not None}
    assert bodies == {
        ("POST", "/users/register"): users.Credentials,
        ("POST", "/users/login"): users.Credentials,
        ("POST", "/users/refresh-token"): users.RefreshToken,
        ("POST", "/users/logout"): users.RefreshToken,
        ("POST", "/users/verify-token"): users.VerifyToken,
        ("PATCH", "/users/{user_id}"): users.UpdateUser,
        ("POST", "/products"): catalog.CreateProduct,
        ("PUT", "/products/{product_id}"): catalog.UpdateProduct,
        ("PATCH", "/products/{product_id}"): catalog.UpdateProduct,
        ("POST", "/orders"): orders.CreateOrder,
        ("POST", "/inventory"): inventory.SetStock,
        ("PUT", "/inventory/{product_id}"): inventory.SetStockLevel,
        ("POST", "/inventory/{product_id}/adjustments"): inventory.AdjustStock,
        ("POST", "/admin/dead-letters/replay"): operations.DeadLetterSelection,
        ("POST", "/admin/dead-letters/discard"): operations.DeadLetterSelection,
    }
    queries = {path: route.query for (_, path), route in BY_NAME.items() if route.query is not NoFields}
    assert queries == {
        "/users": PageRequest,
        "/products": catalog.ProductFilter,
        "/orders": orders.OrderFilter,
        "/inventory": inventory.StockFilter,
        "/inventory/{product_id}/movements": PageRequest,
        "/payments": payments.PaymentFilter,
        "/notifications": notifications.NotificationFilter,
        "/admin/sagas": orders.SagaFilter,
        "/admin/dead-letters": operations.DeadLetterSearch,
        "/admin/dead-letters/{dead_letter_id}/replay": operations.DeadLetterOwner,
        "/admin/dead-letters/{dead_letter_id}": operations.DeadLetterOwner,
        "/admin/refused-events": operations.RefusedEventSearch,
        "/admin/consistency": operations.ConsistencyRequest,
    }


@pytest.mark.parametrize("route", ROUTES, ids=HANDLERS.get)
def test_handler_types_match_the_route_declaration(route):
    hints = get_type_hints(getattr(GatewayService, HANDLERS[route]))
    request = next(kind for name, kind in hints.items() if name in {"request", "_request"})
    body, query = (*get_args(request), Any, Any)[:2]
    assert body in ({Any, type(None)} if route.body is None else {route.body})
    assert query is (Any if route.query is NoFields else route.query)
    assert {hints[name] for name in _parameters(route.path)} <= {UUID}


def test_routes_that_create_accept_an_idempotency_key():
    assert {path for (_, path), route in BY_NAME.items() if route.idempotent} == {
        "/users/register",
        "/products",
        "/orders",
        "/inventory",
        "/inventory/{product_id}/adjustments",
    }


def test_only_probes_bypass_overload_limits_and_share_their_responses():
    assert {path for (_, path), route in BY_NAME.items() if not route.sheds_load} == {"/health/live", "/health/ready"}


def test_a_route_names_the_service_that_it_always_calls():
    """Those without a service respond from a cache or from this process, or call several services."""
    for route, handler in HANDLERS.items():
        called = set(re.findall(r"self\.services\.(\w+)\.", inspect.getsource(getattr(GatewayService, handler))))
        assert not called or route.service.partition(".")[0] in called | {""}, (route.path, called)
    without = {(route.method, route.path) for route in ROUTES if not route.service}
    assert without >= {("GET", "/orders/{order_id}"), ("GET", "/products/{product_id}"), ("GET", "/health/ready")}
    assert not {path for _, path in without if path.startswith(("/payments", "/notifications", "/inventory"))}
