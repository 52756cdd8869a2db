"""The supervisor's server over HTTP, with a suite that notes its signals."""

import signal
from datetime import UTC, datetime
from types import SimpleNamespace

import httpx
import pytest

from contracts.ids import new_id
from deploy import keys
from deploy.local import supervisor_api
from deploy.local.supervisor_api import SupervisorApi
from tests.support import eventually
from users.token_issuer import issue, load_signing_keys

GATEWAY = "http://127.0.0.1:8000"


@pytest.fixture
def signals():
    return []


@pytest.fixture
def api(tmp_path, signals):
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    keys.ensure(private, public)
    suite = SimpleNamespace(
        pid=lambda name: None if name == "catalog" else 7,
        restart_count=lambda _name: 0,
        kill=lambda name, number: signals.append((name, number)),
    )
    server = SupervisorApi(suite, 0, GATEWAY, public)
    key = load_signing_keys(private)[0]

    def token(*roles):
        return issue(key, user_id=new_id(), roles=roles, issued_at=datetime.now(UTC), token_id=new_id())

    url = f"http://127.0.0.1:{server.port}/services"
    headers = {"Authorization": f"Bearer {token('customer', 'admin')}"}
    with httpx.Client(timeout=60) as client:
        yield SimpleNamespace(
            get=lambda: client.get(url, headers=headers),
            post=lambda body, sent=headers: client.post(url, json=body, headers=sent),
            options=lambda origin="http://other.example": client.options(url, headers={"Origin": origin}),
            customer={"Authorization": f"Bearer {token('customer')}"},
            server=server,
        )
    server.stop()


def states(response):
    assert response.status_code == 200, response.text
    return {one["service"]: one["state"] for one in response.json()["items"]}


def test_an_administrator_freezes_thaws_and_kills(api, signals):
    assert (states(api.get())["orders"], states(api.get())["catalog"]) == ("running", "down")
    assert states(api.post({"service": "orders", "action": "freeze"}))["orders"] == "frozen"
    assert states(api.post({"service": "orders", "action": "thaw"}))["orders"] == "running"
    api.post({"service": "payments", "action": "kill"})
    assert signals == [("orders", signal.SIGSTOP), ("orders", signal.SIGCONT), ("payments", signal.SIGKILL)]


@pytest.mark.parametrize("action", ["freeze", "kill"])
def test_others_may_not(api, signals, action):
    body = {"service": "orders", "action": action}
    for headers in ({}, api.customer, {"Authorization": "Bearer x.y.z"}, {"Authorization": "Basic x"}):
        assert api.post(body, headers).status_code == 403
    assert signals == []


@pytest.mark.parametrize(
    "body", [{}, [], {"service": "init", "action": "kill"}, {"service": "orders", "action": "rm"}, {"x": "y" * 2000}]
)
def test_other_bodies_are_refused(api, signals, body):
    assert api.post(body).status_code == 400
    assert signals == []


def test_only_pages_of_the_gateway_read_responses(api):
    assert api.options().headers["access-control-allow-origin"] == GATEWAY
    assert api.get().headers["access-control-allow-origin"] == GATEWAY
    local = GATEWAY.replace("127.0.0.1", "localhost")
    assert api.options(local).headers["access-control-allow-origin"] == local


def test_a_frozen_service_goes_on_by_itself_and_at_the_stop(api, signals, monkeypatch):
    monkeypatch.setattr(supervisor_api, "MAX_FROZEN_SECONDS", 0.1)
    api.post({"service": "orders", "action": "freeze"})
    eventually(lambda: ("orders", signal.SIGCONT) in signals)
    monkeypatch.setattr(supervisor_api, "MAX_FROZEN_SECONDS", 600)
    api.post({"service": "users", "action": "freeze"})
    api.server.stop()
    assert ("users", signal.SIGCONT) in signals
