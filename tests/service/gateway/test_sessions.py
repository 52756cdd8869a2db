"""Sessions and keys over HTTP, with the gateway and the real users service."""

import os
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import httpx
import jwt
import pytest
import sqlalchemy
from nameko import config

from deploy import keys
from extensions.messaging.broadcast import Broadcast
from extensions.messaging.connection import ack
from extensions.security.access_tokens import load_public_keys
from extensions.storage.periodic import Periodic
from tests.jwt_mutations import mutations
from tests.support import database, eventually
from users.service import UsersService

PASSWORD = "correct horse 7 battery"
REFRESHES = int(os.environ.get("REFRESHES", "200"))
CLIENTS = 48


@pytest.fixture
def key_files(servers, tmp_path):
    """Key files of this test: (private, public)."""
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    keys.ensure(private, public)
    with config.patch({"JWT_PRIVATE_KEY_FILE": str(private), "JWT_PUBLIC_KEY_FILE": str(public)}):
        yield private, public


@pytest.fixture
def api(key_files, run_service, gateway):
    run_service(UsersService)
    api = gateway()
    eventually(lambda: api.get("/users/me").status_code == 401)  # 503 before it has caught up
    return api


@pytest.fixture
def session(api):
    account = {"email": "ayse@example.com", "password": PASSWORD}
    response = api.post("/users/register", json=account)
    assert response.status_code == 201
    return response.json()


def me(api, session):
    """The status of GET /users/me with the access token of this session, and the code of an error."""
    response = api.get("/users/me", headers={"Authorization": f"Bearer {session['access_token']}"})
    return response.status_code, response.json().get("code")


def log_in(api):
    return api.post("/users/login", json={"email": "ayse@example.com", "password": PASSWORD}).json()


def refresh(api, session):
    response = api.post("/users/refresh-token", json={"refresh_token": session["refresh_token"]})
    return response.status_code, response.json()


def signed_with(session):
    return jwt.get_unverified_header(session["access_token"])["kid"]


class TestEnds:
    def test_a_logout_reaches_the_access_tokens_of_its_session_only(self, api, session):
        renewed, other = refresh(api, session)[1], log_in(api)
        bearer = {"Authorization": f"Bearer {renewed['access_token']}"}
        body = {"refresh_token": renewed["refresh_token"]}
        assert api.post("/users/logout", json=body, headers=bearer).status_code == 204
        assert refresh(api, renewed)[1]["code"] == "TOKEN_REVOKED"
        for ended in (session, renewed):
            eventually(lambda ended=ended: me(api, ended) == (401, "TOKEN_REVOKED"))
            verified = api.post("/users/verify-token", json={"token": ended["access_token"]})
            assert (verified.status_code, verified.json()["code"]) == (401, "TOKEN_REVOKED")
        assert me(api, other) == (200, None)
        assert refresh(api, other)[0] == 200

    @pytest.mark.parametrize("headers", ["none", "expired", "of another user"])
    def test_a_logout_needs_the_refresh_token_only(self, api, session, login, headers):
        sent = {
            "none": {},
            "expired": login("customer", user_id=session["user"]["id"], age=3600),
            "of another user": login("customer"),
        }[headers]
        body = {"refresh_token": session["refresh_token"]}
        assert api.post("/users/logout", json=body, headers=sent).status_code == 204
        assert api.post("/users/logout", json=body, headers=sent).status_code == 204
        assert refresh(api, session)[1]["code"] == "TOKEN_REVOKED"

    def test_a_deactivation_ends_sessions_permanently(self, api, session, caller):
        user_id = session["user"]["id"]
        caller.users.set_active(user_id, False)
        assert refresh(api, session)[1]["code"] == "USER_INACTIVE"
        eventually(lambda: me(api, session) == (403, "USER_INACTIVE"))
        caller.users.set_active(user_id, True)
        eventually(lambda: me(api, session) == (401, "TOKEN_REVOKED"))
        assert refresh(api, session)[1]["code"] == "TOKEN_REVOKED"
        assert me(api, log_in(api)) == (200, None)

    def test_new_tokens_do_not_have_a_removed_role(self, api, session, caller):
        other = caller.users.register("boss@example.com", PASSWORD)  # because the last administrator cannot be removed
        caller.users.set_roles(other["user"]["id"], ["admin"])
        caller.users.set_roles(session["user"]["id"], ["admin", "customer"])
        admin = refresh(api, session)[1]
        bearer = {"Authorization": f"Bearer {admin['access_token']}"}
        assert api.get("/users", headers=bearer).status_code == 200
        caller.users.set_roles(session["user"]["id"], ["customer"])
        assert refresh(api, admin)[1]["user"]["roles"] == ["customer"]
        eventually(lambda: api.get("/users", headers=bearer).status_code == 403)

    def test_a_gateway_that_missed_broadcasts_catches_up(self, key_files, run_service, gateway, caller, monkeypatch):
        monkeypatch.setattr(Broadcast, "on_message", lambda self, message: ack(self._channel, message.delivery_tag))
        asks = SimpleNamespace()
        setup = Periodic.setup
        monkeypatch.setattr(Periodic, "setup", lambda self: setup(self) or setattr(asks, self.method_name, self))
        run_service(UsersService)
        gone, out = (caller.users.register(f"{name}@example.com", PASSWORD) for name in ("gone", "out"))
        api = gateway()
        eventually(lambda: me(api, out) == me(api, gone) == (200, None))
        caller.users.logout(gone["refresh_token"])
        caller.users.set_active(out["user"]["id"], False)
        assert me(api, out) == me(api, gone) == (200, None)
        # The timer runs at least every 30 s, so one failed attempt still leaves the delay within a minute.
        assert asks.catch_up_with_users.seconds <= 30
        asks.catch_up_with_users.trigger()
        eventually(lambda: me(api, gone) == (401, "TOKEN_REVOKED"))
        eventually(lambda: me(api, out) == (403, "USER_INACTIVE"))


def test_an_error_for_the_wrong_kind_of_token_names_the_right_kind(api, session):
    access, renewing = session["access_token"], session["refresh_token"]
    for answer in (
        api.get("/users/me", headers={"Authorization": f"Bearer {renewing}"}),
        api.post("/users/verify-token", json={"token": renewing}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (401, "INVALID_TOKEN")
        assert "Send the access_token" in answer.json()["detail"]
    bearer = {"Authorization": f"Bearer {access}"}
    for path in ("/users/refresh-token", "/users/logout"):
        answer = api.post(path, json={"refresh_token": access}, headers=bearer)
        assert (answer.status_code, answer.json()["code"]) == (401, "INVALID_TOKEN")
        assert "Send the refresh_token" in answer.json()["detail"]


def test_concurrent_refreshes_of_one_token_leave_at_most_one_chain(api, session):
    """For 10 s all refreshes get the same pair; later ones end the session. 10,000 refreshes can take longer."""
    answers = []

    def ask(client):
        response = client.post("/users/refresh-token", json={"refresh_token": session["refresh_token"]})
        body = response.json()
        answers.append((response.status_code, body.get("code"), body.get("access_token"), body.get("refresh_token")))

    limits = httpx.Limits(max_connections=CLIENTS)
    with (
        httpx.Client(base_url=api.base_url, timeout=30, limits=limits, verify=False) as client,
        ThreadPoolExecutor(CLIENTS) as pool,
    ):
        list(pool.map(lambda _: ask(client), range(REFRESHES)))
    outcomes = Counter(answer[:2] for answer in answers)
    print(outcomes)
    assert outcomes.keys() <= {(200, None), (401, "TOKEN_REVOKED")}
    assert len({answer[2:] for answer in answers if answer[0] == 200}) == 1
    assert live_chains() == (0 if (401, "TOKEN_REVOKED") in outcomes else 1)


def live_chains():
    """The number of refresh tokens that are still valid."""
    statement = """
        SELECT count(*) FROM refresh_tokens JOIN refresh_families ON family_id = id
        WHERE revoked_at IS NULL AND replaced_at IS NULL
    """
    with database("users").connect() as connection:
        return connection.scalar(sqlalchemy.text(statement))


class Visitors:
    """Threads that use an access token, log in and refresh in a loop. `answers` has the status of every response."""

    def __init__(self, api, session):
        self.answers = []
        self._url, self._session, self._over = str(api.base_url), session, threading.Event()
        self._threads = [threading.Thread(target=self._visit) for _ in range(3)]

    def _visit(self):
        account = {"email": "ayse@example.com", "password": PASSWORD}
        with httpx.Client(base_url=self._url, timeout=10, verify=False) as client:
            mine = self._session
            while not self._over.is_set():
                answer = client.post("/users/login", json=account)
                self.answers.append(answer.status_code)
                answer = client.post("/users/refresh-token", json={"refresh_token": answer.json()["refresh_token"]})
                self.answers.append(answer.status_code)
                for holder in (mine, answer.json()):
                    bearer = {"Authorization": f"Bearer {holder['access_token']}"}
                    self.answers.append(client.get("/users/me", headers=bearer).status_code)

    def come(self, requests=60):
        """Await this number of further responses."""
        known = len(self.answers)
        eventually(lambda: len(self.answers) >= known + requests, timeout=30)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exception):
        self._over.set()
        for thread in self._threads:
            thread.join()


def published(api):
    """The ids of the keys in the JWKS."""
    return {key["kid"] for key in api.get("/.well-known/jwks.json").json()["keys"]}


class TestKeyRotation:
    def test_no_request_is_refused_during_key_rotation(self, api, session, key_files):
        private, public = key_files
        old = signed_with(session)
        with Visitors(api, session) as visitors:
            visitors.come()
            keys.announce(private, public)
            eventually(lambda: len(published(api)) == 2)
            visitors.come()
            keys.switch(private)
            eventually(lambda: signed_with(log_in(api)) != old)
            visitors.come()
            assert {me(api, session), me(api, refresh(api, session)[1])} == {(200, None)}
        assert set(visitors.answers) == {200}
        renewed = refresh(api, session)[1]
        keys.retire(private, public)
        eventually(lambda: published(api) == {signed_with(renewed)})
        assert me(api, session) == (401, "INVALID_TOKEN")
        assert me(api, renewed) == (200, None)

    def test_an_earlier_response_can_be_repeated_after_key_rotation(self, api, key_files):
        private, public = key_files
        body = {"email": "key@example.com", "password": PASSWORD}
        first = api.post("/users/register", json=body, headers={"Idempotency-Key": "k"})
        keys.announce(private, public)
        keys.switch(private)
        eventually(lambda: signed_with(api.post("/users/login", json=body).json()) != signed_with(first.json()))
        again = api.post("/users/register", json=body, headers={"Idempotency-Key": "k"})
        assert (again.status_code, again.content) == (201, first.content)


def test_mutated_tokens_are_refused_everywhere(api, session, key_files):
    (key,) = load_public_keys(key_files[1]).values()
    token = session["access_token"]
    outcomes = set()
    for _, mutation in mutations(token, key, 250, seed=7):
        verified = api.post("/users/verify-token", json={"token": mutation.encode(errors="replace").decode()})
        outcomes.add(("verify", verified.status_code))
        if mutation.isascii() and mutation.isprintable() and mutation.strip() not in {token, ""}:
            asked = api.get("/users/me", headers={"Authorization": f"Bearer {mutation}"})
            outcomes.add(("bearer", asked.status_code))
        swapped = api.post("/users/refresh-token", json={"refresh_token": mutation.encode(errors="replace").decode()})
        outcomes.add(("refresh", swapped.status_code))
    # 400: an empty token, or one that is too long
    assert outcomes <= {(door, status) for door in ("verify", "bearer", "refresh") for status in (400, 401)}
    assert {("verify", 401), ("bearer", 401), ("refresh", 401)} <= outcomes
    assert me(api, {"access_token": session["refresh_token"]}) == (401, "INVALID_TOKEN")
    assert refresh(api, {"refresh_token": token})[1]["code"] == "INVALID_TOKEN"
    assert me(api, session) == (200, None)
