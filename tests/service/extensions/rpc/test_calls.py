"""Every call ends in time with a result or an error, and leaves no pending state."""

import socket

import eventlet
import pytest
from nameko.containers import get_container_cls

from contracts.errors import BadCall, ServiceUnavailable, UpstreamTimeout
from extensions.messaging.connection import BrokerUnavailable
from extensions.messaging.listener import Listener
from extensions.rpc.client import PendingCalls
from extensions.rpc.server import RpcServer
from tests.service.extensions.toy import Toy
from tests.stopwatch import Stopwatch
from tests.support import eventually


@pytest.fixture
def toy(servers):
    container = get_container_cls()(Toy)
    container.start()
    yield container
    container.stop()


@pytest.fixture
def calls(toy):
    """The caller. No call may be pending after a test."""
    calls = toy.shared_extensions[PendingCalls]
    yield calls
    assert calls._pending == {}


def cut(container):
    """Break the connection of a service's consumers, like a network failure."""
    container.shared_extensions[Listener]._connection.connection.transport.sock.shutdown(socket.SHUT_RDWR)


def test_a_call_returns_a_result(calls):
    assert calls.call("toy", "sleep", (0,), {}, 5.0) == "rested"


def test_a_late_result_after_a_timeout_is_ignored(calls):
    began = Stopwatch()
    with pytest.raises(UpstreamTimeout):  # NoReply, or on a busy machine before the call is sent
        calls.call("toy", "sleep", (0.5,), {}, 0.2)
    assert began.seconds < 0.45
    eventlet.sleep(0.6)  # the late result has no pending call
    assert calls.call("toy", "sleep", (0,), {}, 5.0) == "rested"


def test_a_call_of_a_stopped_service_fails_immediately(calls):
    began = Stopwatch()
    with pytest.raises(ServiceUnavailable, match="The nobody service is not running"):
        calls.call("nobody", "listens", (), {}, 5.0)
    assert began.seconds < 2


@pytest.mark.parametrize(
    ("method", "args", "kwargs"), [("fly", (), {}), ("sleep", (), {}), ("sleep", (0,), {"how": "well"})]
)
def test_a_call_with_a_wrong_signature_fails_and_affects_no_other(calls, method, args, kwargs):
    with pytest.raises(BadCall):
        calls.call("toy", method, args, kwargs, 5.0)
    assert calls.call("toy", "sleep", (0,), {}, 5.0) == "rested"


def test_a_lost_connection_fails_calls_immediately_and_later_calls_succeed(toy, calls):
    waiting = eventlet.spawn(calls.call, "toy", "sleep", (1.0,), {}, 10.0)
    eventually(lambda: calls._pending)
    began = Stopwatch()
    cut(toy)
    with pytest.raises(UpstreamTimeout, match="lost"):
        waiting.wait()
    assert began.seconds < 1
    eventually(lambda: answers(calls))


def test_calls_without_the_broker_fail_immediately(broker_outage, toy, calls):
    with broker_outage():
        eventually(lambda: not toy.shared_extensions[Listener].is_consuming(calls))
        began = Stopwatch()
        with pytest.raises(BrokerUnavailable):
            calls.call("toy", "sleep", (0,), {}, 5.0)
        assert began.seconds < 0.5
    eventually(lambda: answers(calls))


def answers(calls):
    try:
        return calls.call("toy", "sleep", (0,), {}, 1.0) == "rested"
    except (ServiceUnavailable, UpstreamTimeout):
        return False


def test_a_result_on_a_closed_channel_is_ignored(toy, calls):
    """When the broker closes a connection, py-amqp closes its channels before the service is notified."""
    asked = eventlet.spawn(calls.call, "toy", "sleep", (0.3,), {}, 5.0)
    eventually(lambda: toy._worker_threads)
    toy.shared_extensions[RpcServer]._channel.collect()
    eventually(lambda: not toy._worker_threads)
    assert not toy._died.ready()
    cut(toy)
    with pytest.raises(UpstreamTimeout):
        asked.wait()
    eventually(lambda: toy.shared_extensions[Listener].is_consuming(calls))
    eventually(lambda: toy.shared_extensions[RpcServer]._channel)
    assert calls.call("toy", "sleep", (0,), {}, 5.0) == "rested"
