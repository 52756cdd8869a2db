"""A broker that takes no messages, or says nothing: what needs it fails at its deadline, and all else goes on."""

import itertools
from types import SimpleNamespace

import eventlet
import nameko
import pytest
import sqlalchemy
from nameko import config

from contracts.errors import UpstreamTimeout
from contracts.events import EXCHANGE, queue_name
from contracts.ids import new_id
from contracts.orders import OrderDelivered, OrderShipped
from extensions.messaging import publisher, reconnecting_connection, sender
from extensions.messaging.connection import BrokerBlocked, BrokerUnavailable
from extensions.messaging.event_handler import EventHandler, handles
from extensions.messaging.publisher import ConfirmedPublisher, OutgoingMessage
from extensions.messaging.reconnecting_connection import peers_of
from extensions.messaging.sender import Sender
from extensions.operations import operations
from extensions.rpc.client import PendingCalls
from extensions.rpc.server import rpc
from extensions.runtime.backoff import Backoff
from extensions.storage import engine
from extensions.storage.unit_of_work import Work
from notifications.models import Base
from qa.chaos.proxy import Proxies
from tests.broker_control import memory_alarm
from tests.service.extensions.toy import Calls
from tests.silent_broker import silent_broker
from tests.stopwatch import Stopwatch
from tests.support import TEST_TIMEOUT_SECONDS, database, eventually

HANDLED, FAILS = [], set()
DOORS = {}


class Subject(operations.Operations):
    """Takes the place of notifications. Its handler and its method wait for a door to be opened."""

    name = "notifications"
    work = Work(Base)
    call = Calls()

    @handles(OrderShipped)
    def on_order_shipped(self, events):
        DOORS["handler"].wait()
        ids = [str(received.event.order_id) for received in events]
        if FAILS.intersection(ids):
            raise RuntimeError("intended failure")
        HANDLED.extend(ids)

    @rpc(transaction=False)
    def wait_for_the_door(self):
        DOORS["method"].wait()
        return "open"

    @rpc
    def deliver(self, order_id):
        self.work.publish(OrderDelivered(order_id=order_id, user_id=order_id))


@pytest.fixture
def subject(run_service, monkeypatch):
    # A handler waits in its transaction, on a slow machine for longer than PostgreSQL permits.
    monkeypatch.setitem(engine.SESSION_SETTINGS, "idle_in_transaction_session_timeout", f"{TEST_TIMEOUT_SECONDS:.0f}s")
    HANDLED.clear()
    FAILS.clear()
    DOORS.update(handler=eventlet.Event(), method=eventlet.Event())
    with config.patch({"EVENT_BATCH": 1}):  # the prefetch is two: a third event comes only after an ack
        yield run_service(Subject)


def shipped():
    return OrderShipped(order_id=new_id(), user_id=new_id())


def message():
    return OutgoingMessage(EXCHANGE, "order.delivered", "{}", str(new_id()))


def test_during_an_alarm_calls_fail_at_once_and_acks_go_on(subject, servers, bus):
    calls, publishing = subject.shared_extensions[PendingCalls], subject.shared_extensions[ConfirmedPublisher]
    assert publishing.publish([message()]).failure is None
    events = [shipped() for _ in range(8)]
    for event in events:
        bus.publish(event)
    FAILS.add(str(events[0].order_id))  # it cannot be moved to a retry queue during the alarm
    under_way = eventlet.spawn(calls.call, "notifications", "wait_for_the_door", (), {}, 30.0)
    eventually(lambda: len(subject._worker_threads) >= 2)
    with memory_alarm(servers.rabbitmq):
        eventually(lambda: subject.shared_extensions[Sender].is_blocked)
        DOORS["method"].send()  # a reply is due; it must not block the connection that acknowledges
        began = Stopwatch()
        with pytest.raises(BrokerBlocked) as refused:
            calls.call("notifications", "wait_for_the_door", (), {}, 4.0)
        assert refused.value.retry_after
        for _ in range(2):  # the broker says that it is blocked after the first publish
            assert isinstance(publishing.publish([message()]).failure, BrokerBlocked)
        assert "takes no messages" in publishing.problem
        assert began.seconds < 3
        DOORS["handler"].send()
        eventually(lambda: len(HANDLED) == 7)
        with pytest.raises(UpstreamTimeout, match="takes no messages"):
            under_way.wait()
    FAILS.clear()
    eventually(lambda: len(HANDLED) == 8)
    eventually(lambda: answers(calls))
    assert publishing.publish([message()]).failure is None
    assert not subject._died.ready()


def test_the_events_that_a_handler_holds_are_bounded(subject, bus):
    [handler] = [one for one in subject.extensions if isinstance(one, EventHandler)]
    for _ in range(8):
        bus.publish(shipped())
    queue = queue_name("notifications", OrderShipped)
    eventually(lambda: bus.channel.queue_declare(queue, passive=True).message_count == 6)
    eventually(lambda: len(handler._waiting) == 1)  # and one is being handled
    DOORS["handler"].send()
    eventually(lambda: len(HANDLED) == 8)


def answers(calls):
    try:
        return calls.call("notifications", "wait_for_the_door", (), {}, 2.0) == "open"
    except (BrokerUnavailable, UpstreamTimeout):
        return False


@pytest.fixture
def alone(servers, monkeypatch):
    """A publisher without a service, whose deadline is short."""
    monkeypatch.setattr(publisher, "PUBLISH_SECONDS", 1.0)
    one = ConfirmedPublisher()
    one.container = SimpleNamespace(
        service_name="notifications", spawn_managed_thread=lambda run, **_identifier: eventlet.spawn(run)
    )
    yield one
    one.stop()


def test_a_broker_that_says_nothing_after_the_handshake_fails_publishing_by_its_deadline(alone, monkeypatch):
    with silent_broker() as broker, monkeypatch.context() as short:
        short.setattr(reconnecting_connection, "SETUP_TIMEOUT_SECONDS", 1.0)
        with nameko.config.patch({"AMQP_URI": broker.uri}):
            for _ in range(2):  # the second would wait for the lock
                with eventlet.Timeout(30):
                    assert isinstance(alone.publish([message()]).failure, BrokerUnavailable)
            assert "did not complete the set-up" in alone.problem
        assert broker.handshakes
    eventually(lambda: alone.publish([message()]).failure is None)  # reconnected, to the real broker
    assert alone.problem == ""


@pytest.fixture
def stall(servers):
    """`with stall():` the broker says nothing on open connections, and none of what it gets arrives."""
    proxies = Proxies()
    uri = proxies.start({"AMQP_URI": config["AMQP_URI"]})["AMQP_URI"]
    with config.patch({"AMQP_URI": uri}):
        yield lambda: proxies.fault(proxies.broker, "stall")
    proxies.stop()


def test_a_broker_that_falls_silent_stops_publishing_for_its_deadline_only(stall, alone):
    eventually(lambda: alone.publish([message()]).failure is None)
    with stall():
        waiting = [eventlet.spawn(alone.publish, [message()]) for _ in range(3)]
        with eventlet.Timeout(60):
            assert all(isinstance(one.wait().failure, BrokerUnavailable) for one in waiting)
        assert alone.problem
    eventually(lambda: alone.publish([message()]).failure is None)


def test_after_a_silence_of_the_broker_the_relay_and_calls_go_on(stall, subject, caller, monkeypatch):
    monkeypatch.setattr(sender, "PROBE_TIMEOUT_SECONDS", 1.0)
    monkeypatch.setattr(publisher, "PUBLISH_SECONDS", 1.0)
    calls = subject.shared_extensions[PendingCalls]
    DOORS["method"].send()
    eventually(lambda: answers(calls))
    with stall():
        commit(subject)
        eventually(lambda: subject.shared_extensions[Sender].problem)
        with pytest.raises(BrokerUnavailable):
            calls.call("notifications", "wait_for_the_door", (), {}, 4.0)
        eventually(lambda: subject.shared_extensions[ConfirmedPublisher].problem)
    eventually(lambda: count("outbox") == 0)
    eventually(lambda: answers(calls))


def commit(container):
    """Commit an event to the outbox, without a call."""
    (work,) = [one for one in container.dependencies if isinstance(one, Work)]
    unit = work.get_dependency(None)
    with unit.transaction():
        unit.publish(OrderDelivered(order_id=new_id(), user_id=new_id()))


def count(table):
    with database("notifications").connect() as connection:
        return connection.scalar(sqlalchemy.text(f"SELECT count(*) FROM {table}"))


class OneShortPause(Backoff):
    """The first one that is created pauses briefly, all others for ever."""

    number = itertools.count()

    def __init__(self):
        super().__init__(first=3600.0 if next(self.number) else 0.1, longest=3600.0, jitter=0.0)


def needing(one, connections, needed):
    """Return the set-up of a connection during which, if it is the first one, a call arrives that needs the others."""
    set_up = one._set_up

    def call_and_set_up(raw):
        if not needed:
            needed.append(None)
            needed[:] = [bool(other.require(TEST_TIMEOUT_SECONDS)) for other in connections if other is not one]
        set_up(raw)

    return call_and_set_up


def test_a_connection_that_is_open_again_ends_the_pauses_of_the_others(monkeypatch, broker_outage, run_service, caller):
    monkeypatch.setattr(reconnecting_connection, "Backoff", OneShortPause)
    monkeypatch.setattr(OneShortPause, "next_pause", lambda self, *_: self.first)
    container = run_service(Subject)
    connections = peers_of(container)
    caller.notifications.deliver(str(new_id()))  # opens the connection that publishes
    eventually(lambda: len(connections) == 3 and all(one.connection for one in connections))
    needed = []
    with broker_outage():
        eventually(lambda: all("not connected" in one.problem for one in connections))
        for one in connections:
            monkeypatch.setattr(one, "_set_up", needing(one, connections, needed))
    eventually(lambda: all(one.connection for one in connections))
    assert needed == [True, True]
    eventually(lambda: caller.notifications.health()["status"] == "ok")  # the outbox has a pause of its own
