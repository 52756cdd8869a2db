"""The event log misses nothing: what it does not take at first is written later, and delays no event."""

import json
from datetime import UTC, datetime

import pytest
import sqlalchemy

from contracts.ids import new_id
from extensions.messaging import event_log_catch_up, topology
from extensions.messaging.event_log import GAP
from extensions.messaging.event_log_reader import OFFSET
from extensions.messaging.topology import EVENT_LOG
from tests.broker_control import silent_event_log
from tests.service.extensions.messaging.test_outbox import (
    SHIPPED,
    Publisher,
    arrived,
    channel,  # noqa: F401 - a fixture
    publisher,  # noqa: F401 - a fixture
    waiting,
)
from tests.support import connect, database, eventually


@pytest.fixture
def logged(servers):
    """A function that returns the entries of the log since the test began."""
    began = datetime.now(UTC).replace(tzinfo=None)

    def read():
        entries = []
        with connect() as connection:
            reading = connection.channel()

            def take(message):
                entries.extend(json.loads(line) for line in message.body.split("\n"))
                reading.basic_ack(message.delivery_tag)

            reading.basic_qos(0, 100, False)
            reading.basic_consume(EVENT_LOG, callback=take, arguments={OFFSET: began})
            try:
                while True:
                    connection.drain_events(timeout=0.3)
            except TimeoutError:
                return entries

    return read


def orders_in(entries):
    return {entry["order_id"] for entry in entries}


def stored():
    """The lines that wait for the log."""
    with database("notifications").connect() as connection:
        bodies = connection.scalars(sqlalchemy.text("SELECT body FROM unlogged_events ORDER BY id")).all()
    return [json.loads(line) for body in bodies for line in body.split("\n")]


def publish(publisher, count):  # noqa: F811
    """Publish events, each in a transaction of its own; returns their orders."""
    ids = [str(new_id()) for _ in range(count)]
    for order_id in ids:
        publisher.publish_events(("order.shipped", order_id))
    return ids


def all_arrive(channel, ids):  # noqa: F811
    """Wait until these events are in the queue of their consumer, and nothing is left in the outbox."""
    found = []
    eventually(lambda: found.extend(arrived(channel, SHIPPED)) or set(found) >= set(ids))
    eventually(lambda: waiting() == [])


def test_a_log_whose_queue_is_missing_gets_everything_later(publisher, channel, logged):  # noqa: F811
    first = publish(publisher, 1)
    eventually(lambda: orders_in(logged()) >= {*first})
    channel.queue_delete(EVENT_LOG)
    missed = publish(publisher, 5)
    all_arrive(channel, missed)
    assert [entry["order_id"] for entry in stored()] == missed
    topology.declare(channel)
    eventually(lambda: stored() == [])
    later = publish(publisher, 1)
    eventually(lambda: orders_in(logged()) >= {*missed, *later})
    assert stored() == []


def test_a_log_that_does_not_respond_delays_no_event(servers, publisher, channel, logged):  # noqa: F811
    first = publish(publisher, 1)
    eventually(lambda: orders_in(logged()) >= {*first})
    with silent_event_log(servers.rabbitmq):
        missed = publish(publisher, 5)
        all_arrive(channel, missed)
        assert {entry["order_id"] for entry in stored()} >= {*missed[1:]}
    eventually(lambda: orders_in(logged()) >= {*missed})
    eventually(lambda: stored() == [])


def test_what_an_earlier_process_left_is_written(run_service, logged):
    run_service(Publisher).stop()
    left = {"order_id": str(new_id())}
    with database("notifications").begin() as connection:
        connection.execute(
            sqlalchemy.text("INSERT INTO unlogged_events (body) VALUES (:body)"), {"body": json.dumps(left)}
        )

    class Later(Publisher):
        """Starts after it; run_service emptied the tables for the first process."""

    run_service(Later)
    eventually(lambda: stored() == [])
    assert left in logged()


def test_too_much_is_dropped_and_the_log_says_so(publisher, channel, logged, monkeypatch):  # noqa: F811
    monkeypatch.setattr(event_log_catch_up, "MAX_BYTES", 2_000)
    monkeypatch.setattr(event_log_catch_up, "LONGEST_PAUSE_SECONDS", 0.5)
    first = publish(publisher, 1)
    eventually(lambda: orders_in(logged()) >= {*first})
    channel.queue_delete(EVENT_LOG)
    missed = publish(publisher, 20)
    all_arrive(channel, missed)
    eventually(lambda: len(stored()) < 10 and GAP in {entry["event"] for entry in stored()})
    kept = orders_in(stored()) - {None}
    topology.declare(channel)
    eventually(lambda: stored() == [])
    found = logged()
    assert kept <= orders_in(found)
    gap = next(entry["data"] for entry in found if entry["event"] == GAP)
    assert gap["service"] == "notifications"
    assert gap["since"] <= gap["until"]
