"""Logs and responses contain no password, token or key, also after invalid requests."""

import os
from pathlib import Path

import pytest

from qa.support.client import Client
from tests.secrets_in_logs import secrets_in

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


def test_the_private_key_is_secret(shop):
    """Neither logs nor responses contain the private key, and only the owner of its file can read it."""
    path = Path(shop.suite.env["JWT_PRIVATE_KEY_FILE"])
    lines = [line for line in path.read_text().splitlines() if "-----" not in line]
    assert path.stat().st_mode & 0o077 == 0
    assert secrets_in(shop.suite.log("users").parent, *lines) == []
    assert not [line for line in lines if line in repr(shop.get("/.well-known/jwks.json"))]
