"""Logs and answers hold no password, no token and no key, whatever is done with them, and whatever fails."""

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
def test_a_secret_would_be_found(tmp_path, line):
    (tmp_path / "one.log").write_text(f"INFO nothing\nINFO {line}\n")
    assert len(secrets_in(tmp_path, PASSWORD)) == 1


def test_nothing_of_a_session_is_logged_or_told(shop):
    client, answers = Client(shop.url), []
    account = {"email": f"{os.urandom(6).hex()}@example.com", "password": PASSWORD}

    def ask(method, path, body=None, token=None):
        client.token = token
        answers.append(client.request(method, path, body))
        return answers[-1][1]

    session = ask("POST", "/users/register", account)
    session = ask("POST", "/users/login", account)
    renewed = ask("POST", "/users/refresh-token", {"refresh_token": session["refresh_token"]})
    secret = [PASSWORD, WRONG, *(one[name] for one in (session, renewed) for name in ("access_token", "refresh_token"))]
    sessions, answers = len(answers), answers[3:]
    ask("POST", "/users/login", {**account, "password": WRONG})
    ask("POST", "/users/login", {**account, "passwort": WRONG})
    ask("POST", "/users/login", {"email": PASSWORD, "password": [WRONG]})
    ask("POST", "/users/register", {**account, "password": WRONG})
    ask("POST", "/users/refresh-token", {"refresh_token": session["refresh_token"][:-1]})
    ask("POST", "/users/refresh-token", {"refresh_token": [renewed["refresh_token"]]})
    ask("POST", "/users/verify-token", {"token": renewed["access_token"] + "x"})
    ask("GET", "/users/me", token=renewed["access_token"][:-1])
    ask("GET", "/users/me", token=renewed["refresh_token"])
    ask("POST", "/orders", {"items": PASSWORD}, token=renewed["access_token"])
    ask("POST", "/users/logout", {"refresh_token": renewed["refresh_token"]}, token=renewed["access_token"])
    client.token = None
    status, _ = client.request("GET", "/users/me", headers={"Authorization": f"Basic {WRONG}"})
    assert (status, sessions) == (401, 3)
    told = repr(answers)
    assert not [text for text in secret if text in told]
    assert secrets_in(shop.suite.log("gateway").parent, *secret) == []


def test_the_keys_are_the_services_alone(shop):
    """Neither logs nor answers hold the private key; the file is its owner's."""
    path = Path(shop.suite.env["JWT_PRIVATE_KEY_FILE"])
    lines = [line for line in path.read_text().splitlines() if "-----" not in line]
    assert path.stat().st_mode & 0o077 == 0
    assert secrets_in(shop.suite.log("users").parent, *lines) == []
    assert not [line for line in lines if line in repr(shop.get("/.well-known/jwks.json"))]
