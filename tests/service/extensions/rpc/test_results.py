"""Whatever a method returns or raises, its call ends with a reply and an ack, and no other call is affected."""

from uuid import UUID

import eventlet
import pytest
from nameko import config
from nameko.containers import get_container_cls
from nameko.extensions import DependencyProvider

from contracts.errors import InternalError, InvalidResult, ServiceError
from extensions.messaging.listener import Listener
from extensions.rpc.client import PendingCalls
from extensions.rpc.server import rpc
from tests.service.extensions.toy import Calls, Toy
from tests.support import IS_PLAIN_WIRE, connect, eventually

CYCLE = []
CYCLE.append(CYCLE)
DEEP = []
for _ in range(100_000):
    DEEP = [DEEP]

RESULTS = {
    "a key that is a UUID": lambda: {UUID(int=1): 1},
    "a set": lambda: {1, 2},
    "bytes": lambda: b"1",
    "an object": object,
    "NaN": lambda: float("nan"),
    "a cycle": lambda: CYCLE,
    "100,000 levels": lambda: DEEP,
}


class Unspeakable(ServiceError):
    """An error whose details are no JSON."""

    def to_wire(self):
        return {"detail": object()}


class BrokenSetup(DependencyProvider):
    """A dependency that fails before or after the method, where it is told to."""

    def worker_setup(self, worker_ctx):
        if worker_ctx.entrypoint.method_name == "echo" and worker_ctx.args and worker_ctx.args[0] == "before":
            raise RuntimeError("intended failure")

    def worker_result(self, worker_ctx, result=None, exc_info=None):
        if worker_ctx.entrypoint.method_name == "echo" and worker_ctx.args and worker_ctx.args[0] == "after":
            raise RuntimeError("intended failure")


class Odd:
    name = "odd"
    call = Calls()
    broken = BrokenSetup()

    @rpc(transaction=False)
    def give(self, what):
        return RESULTS[what]()

    @rpc(transaction=False)
    def fail(self):
        raise Unspeakable

    @rpc(transaction=False)
    def echo(self, *args):
        return list(args)

    @rpc(transaction=False)
    def sleep(self, seconds):
        eventlet.sleep(seconds)
        return "rested"


@pytest.fixture
def odd(servers):
    container = get_container_cls()(Odd)
    container.start()
    yield container
    container.stop()


@pytest.fixture
def calls(odd):
    return odd.shared_extensions[PendingCalls]


@pytest.fixture
def another(calls):
    """A call that is under way; it must return."""
    call = eventlet.spawn(calls.call, "odd", "sleep", (0.5,), {}, 30.0)
    yield
    assert call.wait() == "rested"


def all_are_acknowledged(container):
    """Stop the service: a call without an ack would return to the queue."""
    container.stop()
    with connect() as connection:
        return connection.channel().queue_declare("rpc-odd", passive=True).message_count == 0


@pytest.mark.parametrize("what", RESULTS)
def test_a_result_that_is_no_json_fails_its_call_with_a_named_error(odd, calls, another, caplog, what):
    with pytest.raises(InvalidResult) as failed:
        calls.call("odd", "give", (what,), {}, 30.0)
    assert (failed.value.status, failed.value.code) == (500, "INTERNAL_ERROR")
    assert "odd.give" in caplog.text
    assert not odd._died.ready()


def test_an_error_that_is_no_json_fails_its_call(odd, calls, another):
    with pytest.raises(InternalError):
        calls.call("odd", "fail", (), {}, 30.0)
    assert not odd._died.ready()
    assert calls.call("odd", "echo", (1,), {}, 30.0) == [1]


@pytest.mark.skipif(IS_PLAIN_WIRE, reason="Nameko's own container ends at a failing hook of a dependency")
def test_a_dependency_that_fails_ends_its_own_call_only(odd, calls, another, caplog):
    with pytest.raises(InternalError):
        calls.call("odd", "echo", ("before",), {}, 30.0)
    assert calls.call("odd", "echo", ("after",), {}, 30.0) == ["after"]
    eventually(lambda: caplog.text.count("intended failure") >= 2)
    assert not odd._died.ready()


def test_every_call_is_acknowledged(odd, calls):
    for what in ("a set", "NaN"):
        with pytest.raises(InvalidResult):
            calls.call("odd", "give", (what,), {}, 30.0)
    assert all_are_acknowledged(odd)


def test_a_reply_that_is_no_envelope_is_an_internal_error(odd, calls):
    pending = eventlet.spawn(calls.call, "odd", "sleep", (5,), {}, 30.0)
    eventually(lambda: calls._pending)
    (waiting,) = calls._pending.values()
    waiting.send(b"[]")
    with pytest.raises(InternalError):
        pending.wait()


RELEASES = []


class Busy(Odd):
    name = "busy"

    @rpc(transaction=False)
    def wait(self):
        RELEASES[-1].wait()
        return "rested"


def test_a_full_pool_of_workers_does_not_stop_the_reader(servers):
    """Nameko's spawn_worker waits for a free worker. The greenlet that reads the connection must not."""
    with config.patch({"max_workers": 2, "RPC_MAX_CALLS_PER_SERVICE": 10}):
        busy = get_container_cls()(Busy)
    toy = get_container_cls()(Toy)
    containers = [busy, toy]
    with config.patch({"RPC_MAX_CALLS_PER_SERVICE": 10}):
        for container in containers:
            container.start()
    try:
        calls = busy.shared_extensions[PendingCalls]
        RELEASES.append(eventlet.Event())
        waiting = [eventlet.spawn(calls.call, "busy", "wait", (), {}, 60.0) for _ in range(3)]
        eventually(lambda: len(busy._worker_threads) == 2)
        eventlet.sleep(0.2)  # the third call has arrived and waits for a worker
        assert calls.call("toy", "sleep", (0,), {}, 5.0) == "rested"  # its reply is read meanwhile
        RELEASES[-1].send()
        assert [call.wait() for call in waiting] == ["rested"] * 3
    finally:
        for container in containers:
            container.stop()


def test_spawn_worker_never_runs_in_the_greenlet_that_reads(odd, calls, monkeypatch):
    spawn, spawned_by = odd.spawn_worker, []
    monkeypatch.setattr(odd, "spawn_worker", lambda *a, **k: spawned_by.append(eventlet.getcurrent()) or spawn(*a, **k))
    assert calls.call("odd", "echo", (1,), {}, 30.0) == [1]
    assert spawned_by
    assert odd.shared_extensions[Listener]._reader not in spawned_by
