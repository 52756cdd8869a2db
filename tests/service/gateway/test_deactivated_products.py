"""A deactivated product can no longer be ordered, and its old orders stay as they are."""

from tests.service.gateway.responses import bearer, ok
from tests.support import eventually


def test_old_orders_stay_readable(api, admin, session, product):
    customer = bearer(session)
    basket = {"items": [{"product_id": product["id"], "quantity": 2}]}
    order = ok(api.post("/orders", json=basket, headers=customer), 201)
    path = f"/orders/{order['id']}"
    eventually(lambda: ok(api.get(path, headers=customer))["status"] == "CONFIRMED")
    before = ok(api.get(path, headers=customer))
    ok(api.patch(f"/products/{product['id']}", json={"is_active": False, "name": "Gone"}, headers=admin))

    refused = api.post("/orders", json=basket, headers=customer)
    assert (refused.status_code, refused.json()["code"]) == (422, "PRODUCT_UNAVAILABLE")
    assert api.get(f"/products/{product['id']}").status_code == 404
    after = ok(api.get(path, headers=customer))
    assert after["items"] == before["items"]
    assert after["items"][0]["product_sku"] == product["sku"]
    assert ok(api.get("/orders", headers=customer))["items"] == [after]
    assert ok(api.get(f"{path}/timeline", headers=customer))["items"]
    ok(api.post(f"{path}/cancel", headers=customer), 202)
    eventually(lambda: ok(api.get(path, headers=customer))["stock_status"] == "RETURNED")
    assert ok(api.get(f"/inventory/{product['id']}", headers=admin))["available"] == 10
