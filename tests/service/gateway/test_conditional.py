"""Conditional requests: ETag, If-None-Match for reads, If-Match against lost updates."""

import eventlet
import httpx
import pytest

from catalog import use_cases
from tests.service.gateway.responses import PASSWORD, bearer, ok
from tests.support import TEST_TIMEOUT_SECONDS, eventually


@pytest.fixture
def things(api, admin, session, product):
    """The path of one resource of each kind."""
    lines = {"items": [{"product_id": product["id"], "quantity": 1}]}
    order = ok(api.post("/orders", json=lines, headers=admin), 201)
    eventually(lambda: ok(api.get(f"/orders/{order['id']}", headers=admin))["payment_status"] == "CAPTURED")
    payment = ok(api.get(f"/payments/order/{order['id']}", headers=admin))
    return {
        "product": f"/products/{product['id']}",
        "profile": "/users/me",
        "user": f"/users/{session['user']['id']}",
        "order": f"/orders/{order['id']}",
        "timeline": f"/orders/{order['id']}/timeline",
        "stock": f"/inventory/{product['id']}",
        "payment": f"/payments/{payment['id']}",
        "payment of order": f"/payments/order/{order['id']}",
        "keys": "/.well-known/jwks.json",
    }


def test_every_resource_has_an_etag_and_is_304_when_unchanged(api, admin, things):
    for path in things.values():
        got = api.get(path, headers=admin)
        tag = got.headers["etag"]
        assert tag.startswith('"'), path
        again = api.get(path + "/", headers={**admin, "If-None-Match": tag})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag), path
        assert "content-length" not in again.headers
        assert "content-type" not in again.headers
        assert "x-request-id" in again.headers


def test_a_malformed_if_none_match_is_named(api):
    refused = api.get("/.well-known/jwks.json", headers={"If-None-Match": "unquoted"})
    assert refused.status_code == 400
    assert refused.json()["errors"][0]["field"] == "If-None-Match"


def test_head_has_the_headers_of_get(api, admin, things):
    for path in things.values():
        got, head = api.get(path, headers=admin), api.head(path, headers=admin)
        differing = {"x-request-id", "date"}
        assert head.content == b""
        assert {name: head.headers[name] for name in head.headers if name not in differing} == {
            name: got.headers[name] for name in got.headers if name not in differing
        }


def test_a_list_has_no_etag(api):
    assert "etag" not in api.get("/products").headers
    assert "etag" not in api.get("/health/live").headers


def test_a_change_changes_the_etag(api, admin, product):
    path = f"/products/{product['id']}"
    before = api.get(path).headers["etag"]
    changed = api.patch(path, json={"price": "11.00"}, headers=admin)
    assert changed.headers["etag"] != before
    assert api.get(path).headers["etag"] == changed.headers["etag"]
    assert api.get(path, headers={"If-None-Match": before}).status_code == 200


@pytest.fixture
def writes(api, admin, session, product):
    """For each PUT and PATCH: method, path, and two bodies that change something."""
    user = session["user"]["id"]
    return {
        "put product": ("PUT", f"/products/{product['id']}", {"price": "1.00"}, {"price": "2.00"}),
        "update product": ("PUT", f"/products/{product['id']}/update", {"price": "1.00"}, {"price": "2.00"}),
        "patch product": ("PATCH", f"/products/{product['id']}", {"price": "1.00"}, {"price": "2.00"}),
        "stock": ("PUT", f"/inventory/{product['id']}", {"quantity": 1}, {"quantity": 2}),
        "user": ("PATCH", f"/users/{user}", {"roles": ["admin"]}, {"is_active": False}),
    }


def test_if_match(api, admin, writes):
    for method, path, first, second in writes.values():

        def write(body, tag, method=method, path=path):
            return api.request(method, path, json=body, headers={**admin, "If-Match": tag})

        current = api.request(method, path, json=first, headers=admin).headers["etag"]
        for stale in ('"other"', 'W/"other"'):
            refused = write(second, stale)
            assert (refused.status_code, refused.json()["code"]) == (412, "PRECONDITION_FAILED")
        changed = write(second, f'"other", {current}')
        assert changed.status_code == 200
        assert changed.headers["etag"] != current
        assert write(first, current).status_code == 412
        # A proxy that compresses responses makes their tags weak.
        assert write(first, f"W/{changed.headers['etag']}").status_code == 200
        assert write(first, "*").status_code == 200


def test_invalid_conditions_are_named(api, admin, writes):
    for method, path, body, _ in writes.values():
        for header in ({"If-Match": "unquoted"}, {"If-None-Match": "*"}):
            refused = api.request(method, path, json=body, headers=admin | header)
            assert refused.status_code == 400
            assert refused.json()["errors"][0]["field"] == next(iter(header))


def test_a_missing_resource_is_404_whatever_the_condition(api, admin, product):
    path = f"/products/{product['id'][:-4]}0000"
    assert api.patch(path, json={"price": "1.00"}, headers={**admin, "If-Match": "*"}).status_code == 404
    assert api.get(path, headers={"If-None-Match": "*"}).status_code == 404


def test_of_concurrent_writes_with_the_same_etag_one_succeeds(api, admin, writes):
    """The service compares under its lock, so two writes cannot both find the ETag unchanged."""
    for kind in ("patch product", "stock"):
        method, path, body, other = writes[kind]
        tag = api.request(method, path, json=body, headers=admin).headers["etag"]

        def write(number, method=method, path=path, other=other, tag=tag):
            body = {field: f"{number}.50" if field == "price" else 100 + number for field in other}
            with httpx.Client(base_url=str(api.base_url), timeout=TEST_TIMEOUT_SECONDS, verify=False) as client:
                return client.request(method, path, json=body, headers={**admin, "If-Match": tag}).status_code

        statuses = list(eventlet.GreenPool(8).imap(write, range(10, 18)))
        assert sorted(statuses) == [200] + [412] * 7


def test_the_etag_is_compared_after_the_lock_is_acquired(api, admin, product, monkeypatch):
    """No other write gets between comparison and write: the second write compares after the first has finished."""
    path, order, compare = f"/products/{product['id']}", [], use_cases.require_match

    def slowly(view, if_match):
        order.append("compares")
        compare(view, if_match)
        eventlet.sleep(0.2)
        order.append("writes")

    monkeypatch.setattr(use_cases, "require_match", slowly)
    tag = api.get(path).headers["etag"]

    def write(price):
        with httpx.Client(base_url=str(api.base_url), timeout=TEST_TIMEOUT_SECONDS, verify=False) as client:
            return client.patch(path, json={"price": price}, headers={**admin, "If-Match": tag}).status_code

    assert sorted(eventlet.GreenPool().imap(write, ["1.00", "2.00"])) == [200, 412]
    assert order == ["compares", "writes", "compares"]


class TestAccounts:
    """PATCH /users/{id}: both fields change or none, and the last administrator cannot be removed."""

    def test_an_account_is_changed_only_as_it_was_seen(self, api, admin, session):
        path = f"/users/{session['user']['id']}"
        seen = api.get(path, headers=admin)
        assert ok(seen) == session["user"]
        change = {"headers": {**admin, "If-Match": seen.headers["etag"]}, "json": {"is_active": False}}
        assert api.patch(path, **change).status_code == 200
        assert api.patch(path, **change).status_code == 412
        assert api.get(path, headers=bearer(session)).status_code == 403

    def test_both_fields_are_one_change(self, api, admin, session, bus):
        user_id = session["user"]["id"]
        changed = ok(api.patch(f"/users/{user_id}", json={"roles": ["admin"], "is_active": False}, headers=admin))
        assert (changed["roles"], changed["is_active"]) == (["admin"], False)
        bus.wait_for("user.updated", user_id)
        marker = ok(api.post("/users/register", json={"email": "m@example.com", "password": PASSWORD}), 201)
        bus.wait_for("user.registered", marker["user"]["id"])
        assert len(bus.events("user.updated", user_id)) == 1

    def test_an_invalid_field_changes_nothing(self, api, admin, session):
        path = f"/users/{session['user']['id']}"
        assert api.patch(path, json={"roles": ["admin"], "is_active": "no"}, headers=admin).status_code == 400
        assert ok(api.get("/users/me", headers=bearer(session)))["roles"] == ["customer"]

    @pytest.mark.parametrize("change", [{"roles": ["customer"]}, {"is_active": False}])
    def test_the_last_administrator_cannot_be_removed(self, api, admin, session, change):
        me = ok(api.get("/users/me", headers=admin))
        refused = api.patch(f"/users/{me['id']}", json=change, headers=admin)
        assert (refused.status_code, refused.json()["code"]) == (409, "INVALID_STATE")
        assert ok(api.get("/users/me", headers=admin)) == me
        ok(api.patch(f"/users/{session['user']['id']}", json={"roles": ["admin", "customer"]}, headers=admin))
        ok(api.patch(f"/users/{me['id']}", json=change, headers=admin))

    def test_an_inactive_administrator_does_not_count(self, api, admin, session):
        me, other = ok(api.get("/users/me", headers=admin)), f"/users/{session['user']['id']}"
        ok(api.patch(other, json={"roles": ["admin"], "is_active": False}, headers=admin))
        assert api.patch(f"/users/{me['id']}", json={"is_active": False}, headers=admin).status_code == 409

    def test_of_the_last_two_administrators_one_cannot_be_removed(self, api, admin, session):
        me, other = ok(api.get("/users/me", headers=admin))["id"], session["user"]["id"]
        ok(api.patch(f"/users/{other}", json={"roles": ["admin"]}, headers=admin))

        def demote(user_id):
            with httpx.Client(base_url=str(api.base_url), timeout=TEST_TIMEOUT_SECONDS, verify=False) as client:
                return client.patch(f"/users/{user_id}", json={"is_active": False}, headers=admin).status_code

        assert sorted(eventlet.GreenPool().imap(demote, [me, other])) == [200, 409]

    def test_an_empty_change_is_refused(self, api, admin, session):
        refused = api.patch(f"/users/{session['user']['id']}", json={}, headers=admin)
        assert "roles, is_active" in refused.json()["detail"]
