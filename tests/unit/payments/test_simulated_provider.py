"""The bounds of the simulated payment provider's own server."""

import socket

import eventlet
import pytest

from payments import simulated_provider
from payments.http_provider import HttpProvider
from payments.provider import Approved, ProviderUnavailable
from tests.support import eventually
from tests.unit.payments.test_provider import LIMIT, authorisation


@pytest.fixture
def small(monkeypatch):
    """The server in this process, with one place for a call and two for connections."""
    monkeypatch.setattr(simulated_provider, "MAX_CALLS", 1)
    monkeypatch.setattr(simulated_provider, "MAX_CONNECTIONS", 2)
    with simulated_provider.Server(("127.0.0.1", 0), LIMIT) as one:
        serving = eventlet.spawn(one.serve_forever, 0.01)
        yield one
        one.shutdown()
        serving.wait()


def test_the_connections_of_the_server_are_bounded(small):
    silent = [socket.create_connection(small.server_address) for _ in range(2)]
    eventually(lambda: small.connections._value == 0)
    with socket.create_connection(small.server_address) as third:
        assert third.recv(1000) == simulated_provider.BUSY
    for one in silent:
        one.close()
    eventually(lambda: small.connections._value == 2)
    assert isinstance(*HttpProvider(small.url, timeout=30.0).ask(authorisation()), Approved)


def test_the_calls_of_the_server_are_bounded_and_one_that_hangs_holds_no_lock(small):
    provider = HttpProvider(small.url, timeout=30.0)
    hanging = eventlet.spawn(provider.ask, authorisation("pm_hangs"))
    eventually(lambda: small.places._value == 0)
    assert not small.ledger._lock.locked()
    with pytest.raises(ProviderUnavailable, match="503"):
        provider.ask(authorisation())
    hanging.kill()
