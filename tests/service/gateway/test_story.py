"""The gateway and the real services in this process: every route, in realistic sequences."""

from tests.service.gateway.responses import bearer, ok
from tests.support import eventually


def test_the_catalog_and_its_stock(api, admin, product):
    product = ok(api.patch(f"/products/{product['id']}", json={"description": "Rize"}, headers=admin))
    assert ok(api.get(f"/products/{product['id']}")) == product
    assert ok(api.get("/products/all", params={"search": "çay"}))["items"] == [product]
    assert ok(api.get("/products?only_active=false", headers=admin))["items"] == [product]
    assert ok(api.get(f"/inventory/{product['id']}", headers=admin))["on_hand"] == 10
    assert len(ok(api.get("/inventory/all", headers=admin))["items"]) == 1
    assert len(ok(api.get(f"/inventory/{product['id']}/movements", headers=admin))["items"]) == 4


def test_an_inactive_product_is_visible_to_administrators_only(api, admin, session, product):
    ok(api.patch(f"/products/{product['id']}", json={"is_active": False}, headers=admin))
    ok(api.get(f"/products/{product['id']}", headers=admin))
    for headers in ({}, bearer(session)):
        assert api.get(f"/products/{product['id']}", headers=headers).json()["code"] == "PRODUCT_NOT_FOUND"


def test_an_order_from_placement_to_delivery(api, admin, session, product):
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
