"""Every list with its filters, pages and refusals, as the contract specifies."""

import pytest

from contracts.ids import new_id
from tests.service.gateway.responses import bearer, ok
from tests.support import eventually


@pytest.fixture
def ids(api):
    """The field of each item of a list: `ids("/orders", headers, status="CREATED")`."""

    def read(path, headers=None, field="id", **query):
        return [item[field] for item in ok(api.get(path, params=query, headers=headers))["items"]]

    return read


def test_products(api, admin, session, product, ids):
    for sku, name, price, is_active in (("B-1", "Bal", "20.00", True), ("C-1", "Ceviz", "30.00", False)):
        body = {"sku": sku, "name": name, "price": price, "is_active": is_active, "description": f"from {name}köy"}
        ok(api.post("/products", json=body, headers=admin), 201)

    def skus(headers=None, **query):
        return ids("/products", headers, "sku", **query)

    assert skus() == ["B-1", "A-1"]
    assert skus(search="BALKÖY") == ["B-1"]
    assert skus(sku="b-1") == ["B-1"]
    assert skus(min_price="10.01") == ["B-1"]
    assert skus(max_price="10.00") == ["A-1"]
    assert skus(min_price="10", max_price="20") == ["B-1", "A-1"]
    assert skus(min_price="20.01", max_price="10.00") == []
    assert skus(only_active="true", headers=admin) == ["B-1", "A-1"]
    assert skus(only_active="false", headers=admin) == ["C-1", "B-1", "A-1"]
    assert skus(only_active="false", headers=admin, sort="-price", limit=2) == ["C-1", "B-1"]
    for sort in ("created_at", "price", "name", "sku"):
        assert skus(sort=f"-{sort}") == list(reversed(skus(sort=sort)))
    assert skus(sort="sku") == ["A-1", "B-1"]
    assert api.get("/products?only_active=false").status_code == 401
    assert api.get("/products?only_active=false", headers=bearer(session)).status_code == 403


def test_orders_payments_and_notifications(api, admin, session, product, ids):
    me, user_id = bearer(session), session["user"]["id"]
    lines = {"items": [{"product_id": product["id"], "quantity": 1}]}
    first, second, others = (ok(api.post("/orders", json=lines, headers=who), 201) for who in (me, me, admin))
    mine = [second["id"], first["id"]]
    ok(api.post(f"/orders/{first['id']}/cancel", headers=me), 202)
    eventually(lambda: ids("/payments", me, status="CAPTURED") and ids("/orders", me, status="CONFIRMED"))

    assert ids("/orders", me) == mine
    assert ids("/orders", admin) == [others["id"], *mine]
    assert ids("/orders", me, status="CANCELLED") == [first["id"]]
    assert ids("/orders", me, created_after=first["created_at"]) == [second["id"]]
    assert ids("/orders", me, created_before=second["created_at"]) == [first["id"]]
    assert ids("/orders", me, created_after=second["created_at"]) == []
    assert ids("/orders", admin, user_id=user_id) == mine
    assert ids("/orders", admin, user_id=str(new_id())) == []
    assert api.get("/orders", params={"user_id": user_id}, headers=me).status_code == 403

    assert ids("/payments", me, "order_id", order_id=second["id"]) == [second["id"]]
    assert ids("/payments", me, "order_id", status="CAPTURED") == [second["id"]]
    assert ids("/payments", me, "order_id", order_id=others["id"]) == []
    assert ids("/payments", admin, "order_id", order_id=others["id"]) == [others["id"]]

    eventually(lambda: len(ids("/notifications", me)) >= 5)
    notes = ids("/notifications", me)
    assert notes == sorted(notes, reverse=True)
    assert not set(ids("/notifications", admin)) & set(notes)  # only those of the administrator


def test_every_list_is_paginated_and_refuses_invalid_cursors(api, admin, session, product):
    lines = {"items": [{"product_id": product["id"], "quantity": 1}]}
    for _ in range(2):
        ok(api.post("/orders", json=lines, headers=admin), 201)
    eventually(lambda: len(ok(api.get("/notifications", headers=admin))["items"]) >= 4)
    eventually(lambda: len(ok(api.get("/payments?status=CAPTURED", headers=admin))["items"]) >= 2)
    honey = ok(api.post("/products", json={"sku": "B-1", "name": "Bal", "price": "20.00"}, headers=admin), 201)
    stock = {"product_id": honey["id"], "product_sku": "B-1", "quantity": 1}
    ok(api.post("/inventory", json=stock, headers=admin), 201)
    lists = (
        ("/users", 2),
        ("/products/all", 2),
        ("/orders", 2),
        ("/orders?created_before=2999-01-01T00:00:00Z", 2),
        ("/orders?status=CONFIRMED", 2),
        ("/inventory", 2),
        (f"/inventory/{product['id']}/movements", 4),
        ("/payments", 2),
        ("/payments?status=CAPTURED", 2),
        ("/notifications", 4),
        ("/admin/sagas", 0),
        ("/admin/dead-letters", 0),
    )
    for path, at_least in lists:
        asked = f"{path}{'&' if '?' in path else '?'}"
        found, url = [], f"{asked}limit=1"
        while url:
            page = api.get(url, headers=admin)
            found += [str(item) for item in ok(page)["items"]]
            url = page.links.get("next", {}).get("url")
            assert bool(url) == bool(page.json()["next_cursor"]), path
            assert len(page.json()["items"]) <= 1
        assert len(set(found)) == len(found) >= at_least, path
        for query, field in (("cursor=abc", "cursor"), ("limit=0", "limit"), ("limit=101", "limit"), ("x=1", "x")):
            refused = api.get(f"{asked}{query}", headers=admin)
            assert refused.status_code == 400, (path, query)
            assert [error["field"] for error in refused.json()["errors"]] == [field]
