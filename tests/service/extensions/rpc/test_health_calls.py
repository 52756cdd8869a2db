"""Health checks while all places for calls are taken, and calls that wait for a place in vain."""

import eventlet
import pytest
from nameko import config

from contracts.errors import UpstreamTimeout
from extensions.messaging import listener
from extensions.operations import operations
from extensions.rpc.client import PendingCalls
from extensions.rpc.server import RpcServer, rpc
from extensions.storage.unit_of_work import UnitOfWork, Work
from notifications.models import Base
from tests.service.extensions.toy import Calls
from tests.support import Caller, eventually

RUNS = []
DOOR = {}


class Stuck(operations.Operations):
    """Takes the place of notifications. Its method waits for a door to be opened."""

    name = "notifications"
    work = Work(Base)
    call = Calls()

    @rpc(transaction=False)
    def wait_for_the_door(self):
        RUNS.append("begun")
        DOOR["it"].wait()

    @rpc(transaction=False, own_calls="PLACES_OF_ITS_OWN")
    def other(self):
        return "done"


@pytest.fixture
def stuck(run_service):
    RUNS.clear()
    DOOR["it"] = eventlet.Event()
    with config.patch({"RPC_PREFETCH": 1, "PLACES_OF_ITS_OWN": 3}):
        yield run_service(Stuck)
    if not DOOR["it"].ready():
        DOOR["it"].send()


def call(container, seconds):
    """Call the method that waits; returns the greenlet, whose result is None or the error."""

    def attempt():
        try:
            calls = container.shared_extensions[PendingCalls]
            return calls.call("notifications", "wait_for_the_door", (), {}, seconds)
        except UpstreamTimeout as error:
            return error

    return eventlet.spawn(attempt)


def test_a_health_check_never_waits_behind_other_calls(stuck):
    waiting = [call(stuck, 60.0) for _ in range(6)]  # one runs, more than the prefetch wait
    eventually(lambda: RUNS == ["begun"])
    for _ in range(10):
        assert Caller().notifications.health()["parts"]["database"] == "ok"
    assert RUNS == ["begun"]
    DOOR["it"].send()
    for one in waiting:
        assert one.wait() is None


def test_a_health_check_is_made_once(stuck, monkeypatch):
    made = []
    monkeypatch.setattr(UnitOfWork, "is_healthy", lambda _work: made.append(1))
    for _ in range(5):
        Caller().notifications.health()
    server = stuck.shared_extensions[RpcServer]
    eventually(lambda: server._received.empty() and not server._accepting)
    assert len(made) == 5


def test_with_old_definitions_of_the_broker_health_checks_come_with_the_other_calls(run_service, monkeypatch):
    refused = []

    def refuse(_self, _channel):
        refused.append(True)
        raise listener.AccessRefused("old definitions")

    monkeypatch.setattr("extensions.rpc.health_calls.HealthCalls.on_connected", refuse)
    run_service(Stuck)
    assert refused
    assert Caller().notifications.health()["parts"]["database"] == "ok"


def test_a_call_that_waits_until_its_deadline_is_not_made(stuck):
    first = call(stuck, 60.0)
    eventually(lambda: RUNS == ["begun"])
    late = call(stuck, 0.3)
    slots = stuck.shared_extensions[RpcServer]._shared
    assert isinstance(late.wait(), UpstreamTimeout)
    eventually(lambda: not slots._queued)
    patient = call(stuck, 60.0)
    assert Caller().notifications.other() == "done"
    DOOR["it"].send()
    assert first.wait() is None
    assert patient.wait() is None
    assert RUNS == ["begun"] * 2
