"""The gateway in a real container: the RPC call of each route, its actor, and the response made from the result."""

import json
from datetime import UTC, datetime
from unittest.mock import Mock, call

import eventlet
import pytest
import redis
from nameko import config

from contracts.catalog import ProductNotFound
from contracts.errors import ServiceUnavailable, UpstreamTimeout
from contracts.ids import new_id
from contracts.orders import OrderNotFound
from contracts.services import SERVICES
from contracts.users import InvalidToken, TokenExpired, UserUpdated
from extensions.http.routing.authentication import AccessTokens
from extensions.http.routing.dispatcher import HttpServer
from extensions.http.server import listener
from extensions.messaging.connection import BrokerUnavailable
from extensions.runtime.progress import loops_of
from tests.support import connect, eventually

ID = "0190a6b2-0000-7000-8000-000000000001"
USER = new_id()
NOBODY = {"user_id": "00000000-0000-0000-0000-000000000000", "roles": []}
PRODUCT = {"sku": "A-1", "name": "Çay", "price": "9.90"}
ITEMS = [{"product_id": ID, "quantity": 2}]
PAGE = {"items": [], "next_cursor": None}
STOCK = {"product_id": ID, "product_sku": "A-1", "quantity": 5}
ADDRESS = {"name": "Ayşe", "line1": "Bağdat Caddesi 1", "city": "İstanbul", "country": "TR"}
CREDENTIALS = {"email": "a@example.com", "password": "a long password"}

# method, path, body, role (None: no token) -> service.method, its arguments; ACTOR stands for the caller
ACTOR = object()
CALLS = [
    ("POST", "/users/register", CREDENTIALS, None, "users.register",
     {**CREDENTIALS, "address": "127.0.0.1", "idempotency_key": "k"}),
    ("POST", "/users/login", CREDENTIALS, None, "users.login", CREDENTIALS | {"address": "127.0.0.1"}),
    ("POST", "/users/refresh-token", {"refresh_token": "r"}, None, "users.refresh", {"refresh_token": "r"}),
    ("POST", "/users/logout", {"refresh_token": "r"}, None, "users.logout", {"refresh_token": "r"}),
    ("POST", "/users/verify-token", {"token": "t"}, None, "users.verify", {"token": "t"}),
    ("GET", "/users/me", None, "customer", "users.get_user", {"user_id": str(USER), "actor": ACTOR}),
    ("GET", f"/users/{ID}", None, "admin", "users.get_user", {"user_id": ID, "actor": ACTOR}),
    ("GET", "/users?limit=5", None, "admin", "users.list_users", {"limit": 5, "actor": ACTOR}),
    ("GET", "/products", None, None, "catalog.list_products", {"actor": NOBODY}),
    ("GET", "/products/all/?sort=-price&search=%C3%A7ay", None, None, "catalog.list_products",
     {"sort": "-price", "search": "çay", "actor": NOBODY}),
    ("GET", "/products?only_active=false", None, "admin", "catalog.list_products",
     {"only_active": False, "actor": ACTOR}),
    ("GET", f"/products/{ID}", None, None, "catalog.get_product", {"product_id": ID, "actor": NOBODY}),
    ("POST", "/products", PRODUCT, "admin", "catalog.create_product",
     {**PRODUCT, "actor": ACTOR, "idempotency_key": "k"}),
    ("PUT", f"/products/{ID}/update/", {"price": "5.00"}, "admin", "catalog.update_product",
     {"product_id": ID, "price": "5.00", "actor": ACTOR}),
    ("PATCH", f"/products/{ID}", {"is_active": False}, "admin", "catalog.update_product",
     {"product_id": ID, "is_active": False, "actor": ACTOR}),
    ("POST", "/orders/create-order/", {"items": ITEMS, "total_amount": "19.80"}, "customer", "orders.create_order",
     {"items": ITEMS, "total_amount": "19.80", "actor": ACTOR, "idempotency_key": "k"}),
    ("GET", "/orders?status=CREATED", None, "customer", "orders.list_orders", {"status": "CREATED", "actor": ACTOR}),
    ("GET", f"/orders/all?user_id={ID}", None, "admin", "orders.list_orders", {"user_id": ID, "actor": ACTOR}),
    ("POST", "/orders", {"items": ITEMS, "shipping_address": ADDRESS}, "customer", "orders.create_order",
     {"items": ITEMS, "shipping_address": ADDRESS, "actor": ACTOR, "idempotency_key": "k"}),
    ("GET", f"/orders/{ID}", None, "customer", "orders.get_order", {"order_id": ID, "actor": ACTOR}),
    ("GET", f"/orders/{ID}/timeline", None, "customer", "orders.get_timeline", {"order_id": ID, "actor": ACTOR}),
    ("POST", f"/orders/{ID}/cancel", None, "customer", "orders.cancel_order",
     {"order_id": ID, "actor": ACTOR, "idempotency_key": "k"}),
    ("POST", f"/orders/{ID}/cancel", {}, "customer", "orders.cancel_order",
     {"order_id": ID, "actor": ACTOR, "idempotency_key": "k"}),
    ("POST", f"/orders/{ID}/cancel", {"reason": "too late"}, "customer", "orders.cancel_order",
     {"order_id": ID, "reason": "too late", "actor": ACTOR, "idempotency_key": "k"}),
    ("POST", f"/orders/{ID}/ship", {}, "admin", "orders.ship_order",
     {"order_id": ID, "actor": ACTOR, "idempotency_key": "k"}),
    ("POST", f"/orders/{ID}/ship", None, "admin", "orders.ship_order",
     {"order_id": ID, "actor": ACTOR, "idempotency_key": "k"}),
    ("POST", f"/orders/{ID}/ship", {"carrier": "PTT", "tracking_number": None}, "admin", "orders.ship_order",
     {"order_id": ID, "carrier": "PTT", "actor": ACTOR, "idempotency_key": "k"}),
    ("POST", f"/orders/{ID}/deliver", None, "admin", "orders.deliver_order",
     {"order_id": ID, "actor": ACTOR, "idempotency_key": "k"}),
    ("GET", "/inventory", None, "admin", "inventory.list_stock", {"actor": ACTOR}),
    ("GET", f"/inventory/{ID}", None, "admin", "inventory.get_stock", {"product_id": ID, "actor": ACTOR}),
    ("PUT", f"/inventory/{ID}", {"quantity": 7}, "admin", "inventory.change_stock_level",
     {"product_id": ID, "quantity": 7, "actor": ACTOR}),
    ("PUT", f"/inventory/{ID}/threshold", {"low_stock": 5}, "admin", "inventory.set_threshold",
     {"product_id": ID, "low_stock": 5, "actor": ACTOR}),
    ("PUT", f"/inventory/{ID}/threshold", {"low_stock": None}, "admin", "inventory.set_threshold",
     {"product_id": ID, "low_stock": None, "actor": ACTOR}),
    ("POST", f"/inventory/{ID}/adjustments", {"delta": -1, "reason": "broken"}, "admin", "inventory.adjust_stock",
     {"product_id": ID, "delta": -1, "reason": "broken", "actor": ACTOR, "idempotency_key": "k"}),
    ("GET", f"/inventory/{ID}/movements?limit=2", None, "admin", "inventory.list_movements",
     {"product_id": ID, "limit": 2, "actor": ACTOR}),
    ("GET", f"/payments?order_id={ID}", None, "customer", "payments.list_payments", {"order_id": ID, "actor": ACTOR}),
    ("GET", f"/payments/{ID}", None, "customer", "payments.get_payment", {"payment_id": ID, "actor": ACTOR}),
    ("GET", f"/payments/order/{ID}", None, "customer", "payments.get_payment_of_order",
     {"order_id": ID, "actor": ACTOR}),
    ("POST", f"/payments/{ID}/refund", {"amount": "5.00", "reason": "torn"}, "admin", "payments.refund_payment",
     {"payment_id": ID, "amount": "5.00", "reason": "torn", "actor": ACTOR, "idempotency_key": "k"}),
    ("POST", f"/payments/{ID}/refund", {"amount": None, "reason": "torn"}, "admin", "payments.refund_payment",
     {"payment_id": ID, "reason": "torn", "actor": ACTOR, "idempotency_key": "k"}),
    ("GET", f"/payments/{ID}/refunds", None, "admin", "payments.list_refunds", {"payment_id": ID, "actor": ACTOR}),
    ("GET", f"/payments/{ID}/attempts?limit=5", None, "admin", "payments.list_attempts",
     {"payment_id": ID, "limit": 5, "actor": ACTOR}),
    ("GET", "/notifications", None, "customer", "notifications.list_notifications", {"actor": ACTOR}),
    ("POST", f"/notifications/{ID}/read", None, "customer", "notifications.mark_read",
     {"notification_id": ID, "actor": ACTOR, "idempotency_key": "k"}),
    ("GET", "/users/me/notification-preferences", None, "customer", "notifications.get_preferences",
     {"user_id": str(USER), "actor": ACTOR}),
    ("PUT", "/users/me/notification-preferences", {"items": []}, "customer", "notifications.set_preferences",
     {"user_id": str(USER), "items": [], "actor": ACTOR}),
    ("POST", "/webhooks", {"url": "https://example.com/"}, "customer", "notifications.create_webhook",
     {"url": "https://example.com/", "actor": ACTOR, "idempotency_key": "k"}),
    ("GET", "/webhooks?limit=2", None, "customer", "notifications.list_webhooks", {"limit": 2, "actor": ACTOR}),
    ("GET", f"/webhooks/{ID}", None, "customer", "notifications.get_webhook", {"webhook_id": ID, "actor": ACTOR}),
    ("PATCH", f"/webhooks/{ID}", {"is_enabled": False}, "customer", "notifications.update_webhook",
     {"webhook_id": ID, "is_enabled": False, "actor": ACTOR}),
    ("DELETE", f"/webhooks/{ID}", None, "customer", "notifications.delete_webhook",
     {"webhook_id": ID, "actor": ACTOR}),
    ("POST", f"/webhooks/{ID}/rotate-secret", None, "customer", "notifications.rotate_webhook_secret",
     {"webhook_id": ID, "actor": ACTOR, "idempotency_key": "k"}),
    ("POST", f"/webhooks/{ID}/test", None, "customer", "notifications.test_webhook",
     {"webhook_id": ID, "actor": ACTOR, "idempotency_key": "k"}),
    ("POST", f"/webhooks/{ID}/replay", {"since": "2026-01-01T00:00:00Z"}, "customer", "notifications.replay_events",
     {"webhook_id": ID, "since": "2026-01-01T00:00:00.000000Z", "actor": ACTOR, "idempotency_key": "k"}),
    ("GET", f"/webhooks/{ID}/deliveries?state=FAILED", None, "customer", "notifications.list_deliveries",
     {"webhook_id": ID, "state": "FAILED", "actor": ACTOR}),
    ("GET", f"/webhooks/deliveries/{ID}", None, "customer", "notifications.get_delivery",
     {"delivery_id": ID, "actor": ACTOR}),
    ("POST", f"/webhooks/deliveries/{ID}/retry", None, "customer", "notifications.retry_delivery",
     {"delivery_id": ID, "actor": ACTOR, "idempotency_key": "k"}),
]  # fmt: skip
STATUS = {"register": 201, "logout": 204, "create_product": 201, "create_order": 201, "cancel_order": 202,
          "refund_payment": 202,
          "adjust_stock": 201, "mark_read": 204, "create_webhook": 201, "delete_webhook": 204, "test_webhook": 202,
          "replay_events": 202, "retry_delivery": 202}  # fmt: skip


def roles_of(role):
    return ["customer"] + (["admin"] if role == "admin" else [])


@pytest.fixture
def services():
    """Stands in for the other services: `services.orders.create_order.return_value = {...}`."""
    services = Mock()
    services.users.list_changed = lambda **_asked: {"items": []}  # called by a timer, so it is not counted as a call
    return services


@pytest.fixture
def api(gateway, services):
    return gateway(services=services)


def test_each_route_calls_its_service_with_the_actor(api, services, login):
    for method, path, body, role, target, arguments in CALLS:
        service, name = target.split(".")
        asked = getattr(getattr(services, service), name)
        answer = PAGE if name.startswith("list_") else {"id": ID, "from": name}
        asked.reset_mock(return_value=True)
        asked.return_value = answer
        headers = login(*roles_of(role), user_id=USER) if role else {}
        response = api.request(method, path, json=body, headers={**headers, "Idempotency-Key": "k"})
        assert response.status_code == STATUS.get(name, 200), (method, path, response.text)
        actor = {"user_id": str(USER), "roles": roles_of(role)}
        expected = {key: actor if value is ACTOR else value for key, value in arguments.items()}
        assert asked.call_args_list == [call(**expected)], (method, path)
        if response.status_code != 204:
            assert response.json() == answer


def test_permissions_are_checked_before_anything_else(api, services, login):
    for method, path, _body, role, _target, _arguments in CALLS:
        if role is None or path.startswith("/products?"):
            continue
        # an invalid body and invalid ids
        written = path.replace(ID, "42").partition("?")[0]
        assert api.request(method, written, content=b"{").status_code == 401, path
        if role == "admin" and not path.startswith("/orders/all"):
            refused = api.request(method, written, content=b"{", headers=login("customer"))
            assert (refused.status_code, refused.json()["code"]) == (403, "PERMISSION_DENIED"), path
    assert services.mock_calls == []


@pytest.mark.parametrize("path", ["/products?only_active=false", f"/orders?user_id={ID}"])
def test_filters_of_the_administrator(api, services, login, path):
    assert api.get(path, headers=login("customer")).status_code == 403
    assert api.get(path).status_code == 401
    assert services.mock_calls == []


def test_responses_with_tokens_are_not_cacheable(api, services):
    services.users.login.return_value = {"access_token": "t"}
    assert api.post("/users/login", json=CREDENTIALS).headers["cache-control"] == "no-store"


def test_a_new_order_and_a_new_product_have_a_location(api, services, login):
    services.orders.create_order.return_value = {"id": ID}
    services.catalog.create_product.return_value = {"id": ID}
    assert api.post("/orders", json={"items": ITEMS}, headers=login("customer")).headers["location"] == f"/orders/{ID}"
    created = api.post("/products", json=PRODUCT, headers=login("admin"))
    assert created.headers["location"] == f"/products/{ID}"


@pytest.mark.parametrize(("created", "status"), [(True, 201), (False, 200)])
def test_setting_stock_has_a_status_for_created_or_changed(api, services, login, created, status):
    services.inventory.set_stock.return_value = {"product_id": ID, "on_hand": 5, "created": created}
    response = api.post("/inventory/create/", json=STOCK, headers=login("admin"))
    assert (response.status_code, response.json()) == (status, {"product_id": ID, "on_hand": 5})


@pytest.mark.parametrize(
    "change", [{"roles": ["admin"]}, {"is_active": False}, {"roles": ["customer"], "is_active": True}]
)
def test_changing_a_user_is_one_call(api, services, login, change):
    services.users.update_user.return_value = {"id": ID}
    response = api.patch(f"/users/{ID}", json=change, headers={**login("admin"), "If-Match": '"a", "b"'})
    assert (response.status_code, response.json()) == (200, {"id": ID})
    (call,) = services.users.mock_calls
    asked = dict(call.kwargs)
    assert asked.pop("actor")["roles"] == ["admin"]
    assert asked == {"user_id": ID, "if_match": ['"a"', '"b"'], **change}


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (OrderNotFound(), 404, "ORDER_NOT_FOUND"),
        (ServiceUnavailable(), 503, "SERVICE_UNAVAILABLE"),
        (UpstreamTimeout(), 504, "UPSTREAM_TIMEOUT"),
        (KeyError("id"), 500, "INTERNAL_ERROR"),
    ],
)
def test_errors_of_services_become_responses(api, services, login, error, status, code):
    services.orders.get_order.side_effect = error
    response = api.get(f"/orders/{ID}", headers=login("customer"))
    assert (response.status_code, response.json()["code"]) == (status, code)


@pytest.fixture
def cached():
    """Put an entry into the cache of another service: `cached("orders:order", {...})`."""

    def put(kind, entry):
        client = redis.Redis.from_url(config["REDIS_URL"])
        client.hset(f"{kind}:{ID}", mapping={"version": 1, "value": json.dumps(entry)})

    return put


def test_a_cached_order_is_visible_to_its_owner_and_administrators(api, services, login, cached):
    order = {"id": ID, "user_id": str(USER)}
    cached("orders:order", order)
    assert api.get(f"/orders/{ID}", headers=login("customer", user_id=USER)).json() == order
    assert api.get(f"/orders/{ID}", headers=login("admin")).json() == order
    assert services.mock_calls == []
    services.orders.get_order.side_effect = OrderNotFound()
    assert api.get(f"/orders/{ID}", headers=login("customer")).status_code == 404
    assert services.orders.get_order.call_count == 1


def test_a_cached_product_is_public_while_it_is_active(api, services, login, cached):
    cached("catalog:product", {"id": ID, "is_active": True})
    assert api.get(f"/products/{ID}").json() == {"id": ID, "is_active": True}
    assert services.mock_calls == []
    cached("catalog:product", {"id": ID, "is_active": False})
    services.catalog.get_product.side_effect = ProductNotFound()
    assert api.get(f"/products/{ID}").status_code == 404


def test_an_expired_token_is_refused(api, login):
    response = api.get("/orders", headers=login("customer", age=16 * 60))
    assert (response.status_code, response.json()["code"]) == (401, "INVALID_TOKEN")
    assert response.json()["detail"] == TokenExpired.detail
    assert response.headers["www-authenticate"] == (
        f'Bearer error="invalid_token", error_description="{TokenExpired.detail}"'
    )
    forged = login("customer", age=16 * 60)["Authorization"][:-6] + "AAAAAA"
    assert api.get("/orders", headers={"Authorization": forged}).json()["detail"] == InvalidToken.detail


def test_the_public_keys_are_published(api):
    (key,) = api.get("/.well-known/jwks.json").json()["keys"]
    assert (key["kty"], key["crv"], key["alg"], key["use"]) == ("OKP", "Ed25519", "EdDSA", "sig")
    assert "d" not in key


def test_a_deactivated_user_is_refused_immediately(api, services, login, bus):
    services.orders.list_orders.return_value = PAGE
    user_id = new_id()
    headers = login("customer", user_id=user_id, age=5)
    assert api.get("/orders", headers=headers).status_code == 200
    bus.publish(UserUpdated(user_id=user_id, roles=["customer"], is_active=False, at=datetime.now(UTC)))
    eventually(lambda: api.get("/orders", headers=headers).status_code == 403)
    assert api.get("/orders", headers=headers).json()["code"] == "USER_INACTIVE"
    bus.publish(UserUpdated(user_id=user_id, roles=["customer", "admin"], is_active=True, at=datetime.now(UTC)))
    eventually(lambda: api.get("/inventory", headers=headers).status_code != 403)


class TestHealth:
    @pytest.fixture(autouse=True)
    def health(self, services):
        """The health report of each service, which a test can change."""
        within = services.within.return_value
        for name in SERVICES:
            getattr(within, name).health.return_value = {"status": "ok", "parts": {"database": "ok", "redis": "ok"}}
        return within

    def test_live(self, api):
        assert api.get("/health/live/").json() == {"status": "ok"}

    def test_a_stuck_loop_is_named_until_it_reports(self, gateway, services):
        api = gateway(services=services)
        loops = loops_of(gateway.containers[-1])
        assert {"http.accept", "http.memory", "periodic.catch_up_with_users"} <= loops.names()
        with loops.running("http.memory", -1):
            response = eventually(lambda: (now := api.get("/health/live")).status_code == 503 and now)
            assert response.json()["detail"] == "Not alive: http.memory"
            assert [error["field"] for error in response.json()["errors"]] == ["http.memory"]
        eventually(lambda: api.get("/health/live").status_code == 200)

    def test_ready(self, api):
        response = api.get("/health/ready")
        assert (response.status_code, response.json()["status"]) == (200, "ok")
        assert response.json()["services"]["orders"] == {"database": "ok", "redis": "ok"}

    def test_without_redis_it_is_only_degraded(self, api, health):
        health.catalog.health.return_value = {"status": "ok", "parts": {"database": "ok", "redis": "down: 10.0.0.7"}}
        response = api.get("/health/ready")
        assert (response.status_code, response.json()["status"]) == (200, "degraded")
        assert "10.0.0.7" not in response.text

    @pytest.mark.parametrize("error", [ServiceUnavailable(), UpstreamTimeout()])
    def test_a_service_that_is_away_is_named_and_takes_no_gateway_out_of_the_load_balancer(self, api, health, error):
        health.orders.health.side_effect = error
        health.users.health.return_value = {"status": "failing", "parts": {"database": "refused", "redis": "ok"}}
        response = api.get("/health/ready")
        assert (response.status_code, response.json()["status"]) == (200, "degraded")
        assert response.json()["services"]["orders"] == {"service": "down"}
        assert response.json()["services"]["users"] == {"database": "down", "redis": "ok"}

    @pytest.mark.parametrize("cause", ["broker", "tokens", "stop"])
    def test_a_gateway_that_can_serve_nobody_is_not_ready(self, gateway, services, health, cause):
        api = gateway(services=services)
        container = gateway.containers[-1]
        if cause == "broker":
            health.orders.health.side_effect = BrokerUnavailable()
        elif cause == "tokens":
            container.shared_extensions[AccessTokens].verified.caught_up = False
        else:
            container.shared_extensions[HttpServer].is_draining = True
        response = api.get("/health/ready")
        assert response.status_code == 503
        field = "broker" if cause == "broker" else "gateway"
        assert [error["field"] for error in response.json()["errors"]] == [field]
        assert response.json()["detail"].startswith(f"Not ready: {field} ")
        assert "retry-after" in response.headers

    def test_it_is_not_ready_from_the_beginning_of_its_stop(self, gateway, services, health, monkeypatch):
        monkeypatch.setattr(listener, "LAST_REQUEST_SECONDS", 60.0)
        api = gateway(services=services)
        server = gateway.containers[-1].shared_extensions[HttpServer]
        assert api.get("/health/ready").status_code == 200
        stopping = eventlet.spawn(server.finish)
        eventually(lambda: server.is_draining)
        assert api.get("/health/ready").status_code == 503  # on the connection that was open before
        stopping.kill()


def test_a_stopped_service_is_503_immediately(gateway, login):
    api = gateway()
    with connect() as connection:  # left by the services of an earlier test
        for service in ("orders", "users"):
            connection.channel().queue_delete(f"rpc-{service}")
    response = api.get(f"/orders/{ID}", headers=login("customer"))
    assert (response.status_code, response.json()["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert "retry-after" in response.headers
    ready = api.get("/health/ready")
    assert ready.status_code == 503  # nor does it know which accounts have changed, without the users service
    assert [error["field"] for error in ready.json()["errors"]] == ["gateway"]
