"""Logs and responses contain no password, token or key, also after invalid requests."""

import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from contracts.services import PROCESSES
from qa.support.client import Client
from tests.e2e.conftest import service_users
from tests.secrets_in_logs import secrets_in
from tests.support import Bus

PASSWORD = "S3cret-of-this-test, only"
WRONG = "Wr0ng-secret-of-this-test"


@pytest.mark.parametrize(
    "line",
    [
        "token eyJhbGciOiJFZERTQSJ9.eyJpc3MiOiJvcmRlciJ9.x",
        "$argon2id$v=19$m=19456",
        "postgresql+psycopg2://users:users@127.0.0.1/users",
        "{'authorization': 'Bearer abcdefgh'}",
        f"password={PASSWORD}",
    ],
)
def test_the_search_finds_secrets(tmp_path, line):
    (tmp_path / "one.log").write_text(f"INFO nothing\nINFO {line}\n")
    assert len(secrets_in(tmp_path, PASSWORD)) == 1


def test_no_secret_of_a_session_is_in_logs_or_responses(shop):
    client, responses = Client(shop.url), []
    account = {"email": f"{os.urandom(6).hex()}@example.com", "password": PASSWORD}

    def send(method, path, body=None, token=None):
        client.token = token
        responses.append(client.request(method, path, body))
        return responses[-1][1]

    session = send("POST", "/users/register", account)
    session = send("POST", "/users/login", account)
    renewed = send("POST", "/users/refresh-token", {"refresh_token": session["refresh_token"]})
    secret = [PASSWORD, WRONG, *(one[name] for one in (session, renewed) for name in ("access_token", "refresh_token"))]
    sessions, responses = len(responses), responses[3:]
    send("POST", "/users/login", {**account, "password": WRONG})
    send("POST", "/users/login", {**account, "passwort": WRONG})
    send("POST", "/users/login", {"email": PASSWORD, "password": [WRONG]})
    send("POST", "/users/register", {**account, "password": WRONG})
    send("POST", "/users/refresh-token", {"refresh_token": session["refresh_token"][:-1]})
    send("POST", "/users/refresh-token", {"refresh_token": [renewed["refresh_token"]]})
    send("POST", "/users/verify-token", {"token": renewed["access_token"] + "x"})
    send("GET", "/users/me", token=renewed["access_token"][:-1])
    send("GET", "/users/me", token=renewed["refresh_token"])
    send("POST", "/orders", {"items": PASSWORD}, token=renewed["access_token"])
    send("POST", "/users/logout", {"refresh_token": renewed["refresh_token"]}, token=renewed["access_token"])
    client.token = None
    status, _ = client.request("GET", "/users/me", headers={"Authorization": f"Basic {WRONG}"})
    assert (status, sessions) == (401, 3)
    text_of_responses = repr(responses)
    assert not [text for text in secret if text in text_of_responses]
    assert secrets_in(shop.suite.log("gateway").parent, *secret) == []


def test_no_token_of_a_mail_is_in_logs_or_responses(shop):
    client, bus, email = Client(shop.url), Bus(), f"{os.urandom(6).hex()}@example.com"
    passwords = [PASSWORD, f"{PASSWORD}, changed", f"{PASSWORD}, changed again"]
    session = client.must("POST", "/users/register", {"email": email, "password": passwords[0]})
    client.token, user_id = session["access_token"], session["user"]["id"]
    responses = [client.request("POST", "/users/password-reset", {"email": email})]
    (verification,) = bus.wait_for("user.email_verification_requested", user_id)
    (reset,) = bus.wait_for("user.password_reset_requested", user_id)
    bus.close()
    for method, path, body in (
        ("POST", "/users/verify-email", {"token": [verification.token]}),
        ("POST", "/users/verify-email", {"token": reset.token}),
        ("POST", "/users/verify-email", {"token": verification.token}),
        ("POST", "/users/password-reset/confirm", {"token": reset.token, "new_password": "password"}),
        ("POST", "/users/password-reset/confirm", {"token": reset.token, "new_password": passwords[1]}),
        ("POST", "/users/password-reset/confirm", {"token": reset.token, "new_password": passwords[1]}),
        ("PUT", "/users/me/password", {"current_password": WRONG, "new_password": passwords[2]}),
        ("DELETE", "/users/me", {"password": WRONG}),
        ("DELETE", "/users/me", {"password": [passwords[1]]}),
    ):
        responses.append(client.request(method, path, body))
    assert [status for status, _ in responses[:7]] == [202, 400, 401, 204, 422, 204, 401]
    secret = [*passwords, WRONG, verification.token, reset.token]
    assert not [text for text in secret if text in repr(responses)]
    assert secrets_in(shop.suite.log("gateway").parent, *secret) == []


def test_the_private_key_is_secret(shop):
    """Neither logs nor responses contain the private key, and only the owner of its file can read it."""
    path = Path(shop.suite.env["JWT_PRIVATE_KEY_FILE"])
    lines = [line for line in path.read_text().splitlines() if "-----" not in line]
    assert path.stat().st_mode & 0o077 == 0
    assert secrets_in(shop.suite.log("users").parent, *lines) == []
    assert not [line for line in lines if line in repr(shop.get("/.well-known/jwks.json"))]


def environment_of(shop, service):
    entries = Path(f"/proc/{shop.suite.pid(service)}/environ").read_bytes().decode().split("\0")
    return dict(entry.split("=", 1) for entry in entries if entry)


@pytest.mark.parametrize("service", PROCESSES)
def test_a_process_has_the_secrets_of_its_own_service_only(shop, service):
    given = environment_of(shop, service)
    kinds = ("_URI", "_URL", "_PASSWORD", "_PRIVATE_KEY_FILE")
    secret = {name for name in given if name.endswith(kinds)} - {"GATEWAY_URL"}
    own = {f"{service.upper()}_{kind}" for kind in ("AMQP_URI", "REDIS_URL", "DATABASE_URL")}
    assert secret == own & shop.suite.env.keys() | ({"JWT_PRIVATE_KEY_FILE"} if service == "users" else set())
    others = set(parse_passwords(shop.suite.env)) - set(parse_passwords(given))
    assert not [password for password in others if password in repr(given)]


def parse_passwords(env):
    return [urlsplit(value).password for name, value in env.items() if name.endswith(("_URI", "_URL")) and "@" in value]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes as other users")
def test_each_service_runs_as_a_user_of_its_own(shop):
    users = service_users(shop.servers, shop.suite.env)
    if users is None:
        pytest.skip("this machine does not allow mounts, and other users cannot read Python")
    ids = {service: Path(f"/proc/{shop.suite.pid(service)}").stat().st_uid for service in PROCESSES}
    assert ids == users.ids
    assert len(set(ids.values()) - {0}) == len(PROCESSES)
    key = Path(shop.suite.env["JWT_PRIVATE_KEY_FILE"]).stat()
    assert (key.st_uid, key.st_mode & 0o777) == (ids["users"], 0o600)
