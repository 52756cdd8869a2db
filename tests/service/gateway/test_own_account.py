"""/users/me over HTTP: passwords, mails, export and deletion, with the gateway and every service."""

import pytest
from nameko import config

from contracts.account_exports import AccountExport
from gateway import account_export
from tests.service.gateway.responses import PASSWORD, bearer, ok
from tests.support import eventually

NEW = "another horse 8 battery"
ACCOUNT = {"email": "ayse@example.com", "password": PASSWORD}
RESET, VERIFICATION = "user.password_reset_requested", "user.email_verification_requested"


def code(response, status):
    """The code of a problem, which must have this status."""
    assert response.status_code == status, response.text
    return response.json()["code"]


def log_in(api, password=PASSWORD):
    return ok(api.post("/users/login", json=ACCOUNT | {"password": password}))


def order(api, session, product, quantity=1):
    items = [{"product_id": product["id"], "quantity": quantity}]
    return api.post("/orders", json={"items": items}, headers=bearer(session))


class TestPassword:
    def test_a_change_ends_the_other_sessions(self, api, session):
        other = log_in(api)
        change = {"current_password": PASSWORD, "new_password": NEW}
        response = api.put("/users/me/password/", json=change, headers=bearer(session))
        assert (response.status_code, response.content) == (204, b"")
        assert "etag" not in response.headers
        eventually(lambda: api.get("/users/me", headers=bearer(other)).status_code == 401)
        assert code(api.get("/users/me", headers=bearer(other)), 401) == "TOKEN_REVOKED"
        ok(api.get("/users/me", headers=bearer(session)))
        log_in(api, NEW)

    def test_problems_of_a_change(self, api, session):
        me, change = bearer(session), {"current_password": PASSWORD, "new_password": NEW}

        def put(more, **headers):
            return api.put("/users/me/password", json=change | more, headers=me | headers)

        assert code(put({"current_password": NEW}), 401) == "INVALID_CREDENTIALS"
        assert code(put({"new_password": "password"}), 422) == "WEAK_PASSWORD"
        assert code(put({}, **{"If-Match": '"another"'}), 412) == "PRECONDITION_FAILED"
        assert put({"new_password": 7, "old": ""}).json()["errors"] == [
            {"field": "new_password", "message": "must be a string"},
            {"field": "old", "message": "is not a known field"},
        ]
        assert code(api.put("/users/me/password", json=change), 401) == "NOT_AUTHENTICATED"
        etag = api.get("/users/me", headers=me).headers["etag"]
        assert put({}, **{"If-Match": etag}).status_code == 204

    def test_a_reset_works_once_and_ends_all_sessions(self, api, session, bus):
        responses = [
            ok(api.post("/users/password-reset", json={"email": email}), 202)
            for email in (ACCOUNT["email"], "nobody@example.com")
        ]
        assert responses[0] == responses[1]
        [event] = bus.wait_for(RESET, session["user"]["id"])
        confirmation = {"token": event.token, "new_password": NEW}
        assert api.post("/users/password-reset/confirm", json=confirmation).status_code == 204
        assert code(api.post("/users/password-reset/confirm", json=confirmation), 401) == "INVALID_TOKEN"
        eventually(lambda: api.get("/users/me", headers=bearer(session)).status_code == 401)
        log_in(api, NEW)


class TestAddress:
    def test_is_verified_by_a_token(self, api, bus, session):
        assert ok(api.get("/users/me", headers=bearer(session)))["email_verified"] is False
        accepted = ok(api.post("/users/me/verification-email", headers=bearer(session)), 202)
        assert accepted == {"detail": "A mail is on its way."}
        _, event = bus.wait_for(VERIFICATION, session["user"]["id"], 2)
        assert api.post("/users/verify-email", json={"token": event.token}).status_code == 204
        assert ok(api.get("/users/me", headers=bearer(session)))["email_verified"] is True
        assert code(api.post("/users/verify-email", json={"token": event.token}), 401) == "INVALID_TOKEN"
        assert code(api.post("/users/me/verification-email", headers=bearer(session)), 409) == "INVALID_STATE"

    def test_a_setting_says_whether_orders_need_a_verified_one(self, api, bus, session, product):
        ok(order(api, session, product), 201)
        with config.patch({"ORDERS_NEED_VERIFIED_EMAIL": True}):
            assert code(order(api, session, product), 403) == "EMAIL_NOT_VERIFIED"
            [event] = bus.wait_for(VERIFICATION, session["user"]["id"])
            api.post("/users/verify-email", json={"token": event.token})
            ok(order(api, session, product), 201)  # with the same access token
            ok(order(api, log_in(api), product), 201)


class TestProfile:
    def test_the_language_can_be_changed(self, api, session):
        me = bearer(session)
        changed = api.patch("/users/me", json={"language": "tr"}, headers=me)
        assert ok(changed) == ok(api.get("/users/me", headers=me))
        assert changed.json()["language"] == "tr"
        stale = api.patch("/users/me", json={"language": "en"}, headers=me | {"If-Match": '"another"'})
        assert code(stale, 412) == "PRECONDITION_FAILED"
        assert code(api.patch("/users/me", json={"language": "de"}, headers=me), 400) == "VALIDATION_ERROR"
        assert code(api.patch("/users/me", json={"roles": ["admin"]}, headers=me), 400) == "VALIDATION_ERROR"

    def test_the_language_can_be_stated_at_the_registration(self, api):
        account = ACCOUNT | {"language": "tr"}
        assert ok(api.post("/users/register", json=account), 201)["user"]["language"] == "tr"


LISTS = ("sessions", "orders", "payments", "notifications", "webhooks")


class TestExport:
    def test_has_the_records_of_all_services(self, api, session, product, admin):
        me = bearer(session)
        placed = ok(order(api, session, product), 201)
        eventually(lambda: ok(api.get(f"/orders/{placed['id']}", headers=me))["payment_status"] == "CAPTURED")
        told = eventually(lambda: ok(api.get("/notifications", headers=me))["items"])
        preferences = ok(api.get("/users/me/notification-preferences", headers=me))
        response = api.get("/users/me/export", headers=me)
        assert response.headers["cache-control"] == "no-store"
        export = ok(response)
        AccountExport.model_validate(export)
        assert export["user"] == ok(api.get("/users/me", headers=me))
        assert [one["revoked_at"] for one in export["sessions"]] == [None]
        [exported] = export["orders"]
        assert exported["id"] == placed["id"]
        assert exported["timeline"] == ok(api.get(f"/orders/{placed['id']}/timeline", headers=me))["items"]
        assert [one["order_id"] for one in export["payments"]] == [placed["id"]]
        assert {one["id"] for one in export["notifications"]} >= {one["id"] for one in told}
        assert export["notification_preferences"] == preferences["items"]
        assert export["webhooks"] == ok(api.get("/webhooks", headers=me))["items"]
        assert export["next_cursor"] is None
        # The export of an administrator has no records of others.
        assert ok(api.get("/users/me/export", headers=admin))["orders"] == []

    def test_is_complete_in_several_responses(self, api, session, product, monkeypatch):
        monkeypatch.setattr(account_export, "MAX_RECORDS", 3)
        me = bearer(session)
        placed = [ok(order(api, session, product), 201)["id"] for _ in range(4)]
        for made in placed:
            eventually(lambda made=made: ok(api.get(f"/orders/{made}", headers=me))["payment_status"] == "CAPTURED")
        whole, cursor, responses = {name: [] for name in LISTS}, None, 0
        while cursor is not None or not responses:
            params = {"cursor": cursor} if cursor else {}
            page = ok(api.get("/users/me/export", params=params, headers=me))
            assert sum(len(page[name]) for name in whole) <= 3
            for name, records in whole.items():
                records.extend(page[name])
            cursor, responses = page["next_cursor"], responses + 1
        assert [one["id"] for one in whole["orders"]] == placed[::-1]
        assert {one["order_id"] for one in whole["payments"]} == set(placed)
        assert len(whole["sessions"]) == 1
        listed = ok(api.get("/notifications?limit=100", headers=me))["items"]
        assert {one["id"] for one in whole["notifications"]} <= {one["id"] for one in listed}
        assert len({one["id"] for one in whole["notifications"]}) == len(whole["notifications"])

    @pytest.mark.parametrize("cursor", ["x", "users:", "orders:x", "orders"])
    def test_another_cursor_is_refused(self, api, session, cursor):
        response = api.get("/users/me/export", params={"cursor": cursor}, headers=bearer(session))
        assert code(response, 400) == "VALIDATION_ERROR"
        assert [error["field"] for error in response.json()["errors"]] == ["cursor"]


class TestDeletion:
    def test_the_account_is_gone_and_its_open_orders_are_cancelled(self, api, session, product, admin):
        me = bearer(session)
        placed = ok(order(api, session, product), 201)
        response = api.request("DELETE", "/users/me", json={"password": PASSWORD}, headers=me)
        assert (response.status_code, response.content) == (204, b"")
        eventually(lambda: code(api.get("/orders", headers=me), 403) == "USER_INACTIVE")
        assert code(api.post("/users/login", json=ACCOUNT), 401) == "INVALID_CREDENTIALS"

        def cancelled():
            now = ok(api.get(f"/orders/{placed['id']}", headers=admin))
            return (now["status"], now["stock_status"], now["payment_status"]) if now["cancel_reason"] else None

        assert eventually(cancelled)[0] == "CANCELLED"
        assert ok(api.get("/users?limit=100", headers=admin))["items"][0]["email"] == "boss@example.com"
        ok(api.post("/users/register", json=ACCOUNT), 201)

    def test_needs_a_body_with_the_password(self, api, session):
        me = bearer(session)
        assert code(api.delete("/users/me", headers=me), 400) in {"MALFORMED_JSON", "VALIDATION_ERROR"}
        assert code(api.request("DELETE", "/users/me", json={}, headers=me), 400) == "VALIDATION_ERROR"
        text = me | {"Content-Type": "text/plain"}
        assert code(api.request("DELETE", "/users/me", content="x", headers=text), 415) == "UNSUPPORTED_MEDIA_TYPE"
        wrong = api.request("DELETE", "/users/me", json={"password": NEW}, headers=me)
        assert code(wrong, 401) == "INVALID_CREDENTIALS"
        ok(api.get("/users/me", headers=me))
