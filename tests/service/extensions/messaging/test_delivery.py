"""Delivery of events: each takes effect once, is retried after a failure, survives outages, or is a dead letter."""

import amqp
import eventlet
import pytest
import sqlalchemy

from contracts.errors import InvalidState
from contracts.events import queue_name
from contracts.ids import new_id
from contracts.orders import OrderDelivered, OrderShipped
from extensions.messaging import event_handler, retries, topology
from extensions.messaging.event_handler import handles
from extensions.messaging.publisher import ConfirmedPublisher
from extensions.operations import operations
from extensions.rpc.server import rpc
from extensions.storage.lock_timeouts import LockTimeouts
from extensions.storage.unit_of_work import Work
from notifications.models import Base
from tests.support import database, eventually

QUEUE, OTHER_QUEUE = (queue_name("notifications", event) for event in (OrderShipped, OrderDelivered))
SEEN = []
FAILS_ON = {}
FAILURE = {}
NEEDS_ROW = set()
ROW = sqlalchemy.text("SELECT name FROM timers WHERE name = 'held' FOR UPDATE")


class Recorder(operations.Operations):
    """Takes the place of notifications, consumes two events, and fails on demand."""

    name = "notifications"
    work = Work(Base)

    @handles(OrderShipped, OrderDelivered)
    def on_events(self, events):
        SEEN.append([str(received.event.order_id) for received in events])
        if any(str(received.event.order_id) in NEEDS_ROW for received in events):
            self.work.session.execute(ROW)
        for received in events:
            left = FAILS_ON.get(str(received.event.order_id), 0)
            if left:
                FAILS_ON[str(received.event.order_id)] = left - 1
                raise FAILURE.get("kind", RuntimeError)("intended failure")

    @rpc
    def ping(self):
        return "pong"


@pytest.fixture
def recorder(run_service):
    SEEN.clear()
    FAILS_ON.clear()
    FAILURE.clear()
    NEEDS_ROW.clear()
    return run_service(Recorder)


def shipped():
    return OrderShipped(order_id=new_id(), user_id=new_id())


def delivered():
    return OrderDelivered(order_id=new_id(), user_id=new_id())


def handler_of(container):
    return next(one for one in container.entrypoints if isinstance(one, event_handler.EventHandler))


def times_seen(event):
    return sum(batch.count(str(event.order_id)) for batch in SEEN)


def count(table, where="true"):
    with database("notifications").connect() as connection:
        return connection.scalar(sqlalchemy.text(f"SELECT count(*) FROM {table} WHERE {where}"))


def dead_letters(caller):
    return caller.notifications.list_dead_letters()["items"]


def test_waiting_events_are_handled_in_batches_and_duplicates_once(recorder, bus):
    events = [shipped() for _ in range(40)]
    for event in events:
        message_id = bus.publish(event)
        bus.publish(event, message_id=message_id)
    eventually(lambda: all(times_seen(event) for event in events))
    eventually(lambda: bus.is_drained(QUEUE))
    assert [times_seen(event) for event in events] == [1] * 40
    assert len(SEEN) < 40
    assert count("inbox") == 40


def test_events_of_all_kinds_share_a_batch(recorder, bus):
    shipments, deliveries = [shipped() for _ in range(20)], [delivered() for _ in range(20)]
    for shipment, delivery in zip(shipments, deliveries, strict=True):
        bus.publish(shipment)
        bus.publish(delivery)
    eventually(lambda: count("inbox") == 40)
    assert [times_seen(event) for event in (*shipments, *deliveries)] == [1] * 40
    sent = {str(event.order_id) for event in shipments}
    assert any(sent & set(batch) and set(batch) - sent for batch in SEEN)
    assert count("inbox", "handler = 'on_order_delivered'") == 20  # the same as with a handler per event
    recorder.stop()  # unacknowledged messages would return to the queue
    assert bus.is_drained(QUEUE)
    assert bus.is_drained(OTHER_QUEUE)


def test_a_failed_event_is_retried_in_the_queue_of_its_kind(recorder, bus, caller):
    bad, good = delivered(), [shipped() for _ in range(5)]
    FAILS_ON[str(bad.order_id)] = 1000
    bus.publish(bad)
    for event in good:
        bus.publish(event)
    (letter,) = eventually(lambda: dead_letters(caller))
    assert letter["queue"] == OTHER_QUEUE
    assert count("inbox") == 5
    FAILS_ON.clear()
    caller.notifications.replay_dead_letter(letter["id"])
    eventually(lambda: count("inbox", "handler = 'on_order_delivered'") == 1)


def test_a_failed_event_is_retried_and_delays_no_other(recorder, bus):
    bad, good = shipped(), [shipped() for _ in range(5)]
    FAILS_ON[str(bad.order_id)] = 3  # in the batch, alone, and at the first retry
    bus.publish(bad)
    for event in good:
        bus.publish(event)
    eventually(lambda: FAILS_ON[str(bad.order_id)] == 0 and count("inbox") == 6)
    assert count("dead_letters") == 0


def test_an_event_whose_retry_queue_is_refused_becomes_a_dead_letter_and_stops_no_other(
    recorder, bus, caller, monkeypatch
):
    """Without a limit, the handler would wait for the retry queue for ever."""
    monkeypatch.setattr(ConfirmedPublisher, "publish_one", lambda _publisher, _message: "no permission")
    bad, good = shipped(), [shipped() for _ in range(5)]
    FAILS_ON[str(bad.order_id)] = 1000
    for event in (bad, *good):
        bus.publish(event)
    (letter,) = eventually(lambda: dead_letters(caller))
    assert "was not possible: no permission" in letter["error"]
    eventually(lambda: count("inbox") == 5)


def test_a_timeout_that_a_handler_raises_counts_as_a_failure(recorder, bus):
    bad, after = shipped(), shipped()
    FAILURE["kind"] = lambda _message: eventlet.Timeout(3600)  # not an Exception
    FAILS_ON[str(bad.order_id)] = 2
    bus.publish(bad)
    bus.publish(after)
    eventually(lambda: count("inbox") == 2)


def test_an_event_that_always_fails_becomes_a_dead_letter_that_can_be_replayed_once(recorder, bus, caller):
    bad = shipped()
    FAILS_ON[str(bad.order_id)] = 1000
    message_id = bus.publish(bad)
    (letter,) = eventually(lambda: dead_letters(caller))
    assert letter["message_id"] == message_id
    assert letter["queue"] == QUEUE
    assert letter["attempts"] == len(topology.retry_delays()) + 1 == times_seen(bad)
    assert "intended failure" in letter["error"]

    FAILS_ON.clear()
    caller.notifications.replay_dead_letter(letter["id"])
    eventually(lambda: count("inbox") == 1)
    assert dead_letters(caller) == []
    with pytest.raises(InvalidState, match="replayed already"):
        caller.notifications.replay_dead_letter(letter["id"])


def test_an_outage_of_the_database_uses_no_retries(recorder, bus, servers):
    servers.postgres.stop()
    event = shipped()
    bus.publish(event)
    eventually(lambda: bus.is_drained(QUEUE))  # received, and held until the database is available
    eventlet.sleep(2.0)  # for longer than all its attempts would take
    servers.postgres.start()
    eventually(lambda: count("inbox") == 1, timeout=30)
    assert times_seen(event) == 1
    assert count("dead_letters") == 0


def test_a_locked_row_delays_only_the_events_that_need_it(recorder, bus, caller, monkeypatch):
    monkeypatch.setattr(handler_of(recorder), "_lock_timeouts", LockTimeouts("1s", event_handler.SHORT_LOCK_TIMEOUT))
    engine = database("notifications")
    blocked, free = [shipped() for _ in range(3)], shipped()
    NEEDS_ROW.update(str(event.order_id) for event in blocked)
    with engine.begin() as setup:
        setup.execute(sqlalchemy.text("INSERT INTO timers VALUES ('held', now()) ON CONFLICT DO NOTHING"))
    with engine.begin() as holder:
        holder.execute(ROW)
        for event in blocked:
            bus.publish(event)
        eventually(lambda: bus.is_drained(QUEUE))
        bus.publish(free)
        eventually(lambda: count("inbox") == 1, timeout=8)
        # For longer than all attempts would take: each return of the events uses none.
        eventually(lambda: min(map(times_seen, blocked)) > 2 * len(topology.retry_delays()), timeout=40)
    eventually(lambda: count("inbox") == 4, timeout=15)
    assert times_seen(free) <= 2  # twice if it was in one batch with the others
    assert dead_letters(caller) == []


def test_many_events_that_need_a_locked_row_delay_no_others(recorder, bus, caller, monkeypatch):
    """As many orders of one product whose stock is locked: one after the other, they would stop all other orders."""
    monkeypatch.setattr(handler_of(recorder), "_lock_timeouts", LockTimeouts("2s", "4s"))
    delayed, delay = [], retries.Retries._delay
    monkeypatch.setattr(retries.Retries, "_delay", lambda *given: delayed.append(given) or delay(*given))
    first, *blocked = [shipped() for _ in range(event_handler.LOCKED_AT_ONCE)]
    NEEDS_ROW.update(str(event.order_id) for event in (first, *blocked))
    engine = database("notifications")
    with engine.begin() as setup:
        setup.execute(sqlalchemy.text("INSERT INTO timers VALUES ('held', now()) ON CONFLICT DO NOTHING"))
    with engine.begin() as holder:
        holder.execute(ROW)
        bus.publish(first)
        eventually(lambda: times_seen(first))
        for event in (*blocked, free := shipped()):  # they are a batch, while the first one waits for the row
            bus.publish(event)
        eventually(lambda: count("inbox") == 1)
        assert times_seen(free) == 2, "it was handled alone"
        assert len(delayed) == 1, "it waited until others had given up"
    eventually(lambda: count("inbox") == 2 + len(blocked))
    assert dead_letters(caller) == []


def test_an_outage_of_the_broker_loses_nothing(recorder, servers):
    servers.rabbitmq.restart()
    event = shipped()

    def publish_and_see():
        from tests.support import Bus

        bus = Bus()
        bus.publish(event)
        bus.close()
        return True

    eventually(lambda: survives(publish_and_see), timeout=30)
    eventually(lambda: times_seen(event), timeout=30)


def survives(call):
    try:
        return call()
    except (OSError, amqp.AMQPError):
        return False


def test_events_are_published_only_if_the_transaction_commits(run_service, bus):
    class Publisher(operations.Operations):
        name = "notifications"
        work = Work(Base)

        @rpc
        def publish_event(self, order_id, fail):
            self.work.publish(OrderShipped(order_id=order_id, user_id=order_id))
            if fail:
                raise RuntimeError("after publish")

    run_service(Publisher)
    from tests.support import Caller

    committed, failed = str(new_id()), str(new_id())
    with pytest.raises(Exception, match="our side"):
        Caller().notifications.publish_event(failed, True)
    Caller().notifications.publish_event(committed, False)
    bus.wait_for("order.shipped", committed)
    assert bus.events("order.shipped", failed) == []
    eventually(lambda: count("outbox") == 0)
