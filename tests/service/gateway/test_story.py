"""The gateway with the real services behind it, all in this process: every route, in the course of one story."""

import pytest

from catalog.service import CatalogService
from inventory.service import InventoryService
from notifications.service import NotificationsService
from orders.service import OrdersService
from payments.service import PaymentsService
from tests.support import eventually
from users.service import UsersService

PASSWORD = "correct horse 7 battery"


@pytest.fixture
def api(gateway, run_service):
    for service in (
        UsersService,
        CatalogService,
        OrdersService,
        InventoryService,
        PaymentsService,
        NotificationsService,
    ):
        run_service(service)
    api = gateway()
    eventually(lambda: api.get("/health/ready").status_code == 200)
    return api


def ok(response, status=200):
    assert response.status_code == status, f"{response.request.method} {response.request.url}: {response.text}"
    return response.json() if response.content else None


def bearer(session):
    return {"Authorization": f"Bearer {session['access_token']}"}


@pytest.fixture
def admin(api, caller):
    """Headers of an administrator."""
    account = {"email": "boss@example.com", "password": PASSWORD}
    user = ok(api.post("/users/register", json=account), 201)["user"]
    caller.users.set_roles(user["id"], ["customer", "admin"])
    return bearer(ok(api.post("/users/login", json=account)))


@pytest.fixture
def session(api):
    """A customer who has just registered."""
    return ok(api.post("/users/register/", json={"email": "ayse@example.com", "password": PASSWORD}), 201)


@pytest.fixture
def product(api, admin):
    """A product of which there are ten, at 10.00."""
    product = ok(api.post("/products", json={"sku": "A-1", "name": "Çay", "price": "9.90"}, headers=admin), 201)
    stock = {"product_id": product["id"], "product_sku": "A-1", "quantity": 5}
    assert "created" not in ok(api.post("/inventory/create", json=stock, headers=admin), 201)
    ok(api.post("/inventory", json=stock, headers=admin), 200)
    ok(api.put(f"/inventory/{product['id']}", json={"quantity": 7}, headers=admin))
    change = {"delta": 3, "reason": "found"}
    ok(api.post(f"/inventory/{product['id']}/adjustments", json=change, headers=admin), 201)
    return ok(api.put(f"/products/{product['id']}/update", json={"price": "10.00"}, headers=admin))


def test_the_catalog_and_its_stock(api, admin, product):
    product = ok(api.patch(f"/products/{product['id']}", json={"description": "Rize"}, headers=admin))
    assert ok(api.get(f"/products/{product['id']}")) == product
    assert ok(api.get("/products/all", params={"search": "çay"}))["items"] == [product]
    assert ok(api.get("/products?only_active=false", headers=admin))["items"] == [product]
    assert ok(api.get(f"/inventory/{product['id']}", headers=admin))["on_hand"] == 10
    assert len(ok(api.get("/inventory/all", headers=admin))["items"]) == 1
    assert len(ok(api.get(f"/inventory/{product['id']}/movements", headers=admin))["items"]) == 4


def test_an_inactive_product_is_the_administrators(api, admin, session, product):
    ok(api.patch(f"/products/{product['id']}", json={"is_active": False}, headers=admin))
    ok(api.get(f"/products/{product['id']}", headers=admin))
    for headers in ({}, bearer(session)):
        assert api.get(f"/products/{product['id']}", headers=headers).json()["code"] == "PRODUCT_NOT_FOUND"


def test_an_order_from_basket_to_door(api, admin, session, product):
    customer = bearer(session)
    lines = {"items": [{"product_id": product["id"], "quantity": 2, "price_snapshot": "10.00"}]}
    headers = {**customer, "Idempotency-Key": "once"}
    placed = api.post("/orders/create-order/", json=lines, headers=headers)
    order, path = ok(placed, 201), placed.headers["location"]
    assert (order["status"], order["total_amount"], order["user_id"]) == ("CREATED", "20.00", session["user"]["id"])
    assert ok(api.post("/orders", json=lines, headers=headers), 201)["id"] == order["id"]
    eventually(lambda: ok(api.get(path, headers=customer))["status"] == "CONFIRMED")
    eventually(lambda: ok(api.get(f"/payments/order/{order['id']}", headers=customer))["status"] == "CAPTURED")
    payment = ok(api.get("/payments", headers=customer))["items"][0]
    assert ok(api.get(f"/payments/{payment['id']}", headers=customer))["amount"] == "20.00"
    assert ok(api.get(f"/payments/all?order_id={order['id']}", headers=admin))["items"][0]["id"] == payment["id"]
    ok(api.post(f"{path}/ship", headers=admin))
    assert api.post(f"{path}/cancel", headers=customer).json()["code"] == "INVALID_STATE"
    assert ok(api.post(f"{path}/deliver/", headers=admin))["status"] == "DELIVERED"
    assert ok(api.get(f"{path}/timeline", headers=customer))["items"][0]["event"] == "order.created"
    note = eventually(lambda: ok(api.get("/notifications", headers=customer))["items"])[0]
    ok(api.post(f"/notifications/{note['id']}/read", headers=customer), 204)


def test_lists_of_orders(api, admin, session, product):
    customer, user_id = bearer(session), session["user"]["id"]
    lines = {"items": [{"product_id": product["id"], "quantity": 1}]}
    first, second = (ok(api.post("/orders", json=lines, headers=customer), 201) for _ in range(2))
    ok(api.post(f"/orders/{first['id']}/cancel", headers=customer), 202)
    page = api.get("/orders?limit=1", headers=customer)
    assert ok(page)["items"][0]["id"] == second["id"]
    following = api.get(page.links["next"]["url"], headers=customer)
    assert ok(following)["items"][0]["id"] == first["id"]
    assert ok(following)["next_cursor"] is None
    assert len(ok(api.get(f"/orders/all?user_id={user_id}", headers=admin))["items"]) == 2
    assert ok(api.get("/orders", headers=admin))["items"][0]["id"] == second["id"]


def test_an_account_and_its_sessions(api, admin, session):
    customer, user_id = bearer(session), session["user"]["id"]
    assert ok(api.get("/users/user-profile", headers=customer))["email"] == "ayse@example.com"
    assert len(ok(api.get("/users", headers=admin))["items"]) == 2
    assert ok(api.post("/users/verify-token", json={"token": session["access_token"]}))["user_id"] == user_id
    renewed = ok(api.post("/users/refresh-token", json={"refresh_token": session["refresh_token"]}))
    ok(api.post("/users/logout", json={"refresh_token": renewed["refresh_token"]}, headers=bearer(renewed)), 204)
    ok(api.patch(f"/users/{user_id}", json={"is_active": False}, headers=admin))
    eventually(lambda: api.get("/orders", headers=customer).json().get("code") == "USER_INACTIVE")
