"""The outbox: every committed event is delivered, whatever happens to other events, its process or its queue."""

import json
import time

import eventlet
import pytest
import sqlalchemy

from contracts.events import queue_name
from contracts.ids import new_id
from contracts.orders import OrderDelivered, OrderShipped
from extensions.messaging import topology
from extensions.messaging.outbox_relay import SWEEP
from extensions.operations import operations
from extensions.rpc.server import rpc
from extensions.storage import timers
from extensions.storage.timers import claim as claim_timer
from extensions.storage.unit_of_work import Work
from notifications.models import Base
from tests.support import connect, database, eventually

SHIPPED, DELIVERED = queue_name("notifications", OrderShipped), queue_name("notifications", OrderDelivered)
KINDS = {"order.shipped": OrderShipped, "order.delivered": OrderDelivered}


class Publisher(operations.Operations):
    """Publishes the given events and consumes none: they stay in their queues."""

    name = "notifications"
    work = Work(Base)

    @rpc
    def publish_events(self, *events):
        for event_type, order_id in events:
            self.work.publish(KINDS[event_type](order_id=order_id, user_id=order_id))

    @rpc(transaction=False)
    def publish_outside_of_a_transaction(self):
        with self.work.transaction():
            pass
        with pytest.raises(RuntimeError, match=r"order\.shipped is published outside of a transaction"):
            self.work.publish(OrderShipped(order_id=new_id(), user_id=new_id()))
        return "refused"


@pytest.fixture
def channel(servers):
    with connect() as connection:
        yield connection.channel()


@pytest.fixture
def publisher(run_service, caller):
    run_service(Publisher)
    return caller.notifications


def arrived(channel, queue):
    """Take all messages of a queue; returns the order ids in their order."""
    orders = []
    while message := channel.basic_get(queue, no_ack=True):
        orders.append(json.loads(message.body)["order_id"])
    return orders


def waiting():
    with database("notifications").connect() as connection:
        return connection.execute(sqlalchemy.text("SELECT event_type, attempts FROM outbox ORDER BY id")).all()


def leave_behind(count, **values):
    """Write committed events into the outbox, as a process does that crashes before it relays them."""
    events = [OrderShipped(order_id=new_id(), user_id=new_id()) for _ in range(count)]
    rows = [
        {
            "message_id": new_id(),
            "event_type": event.event_type,
            "body": event.to_json(),
            "correlation_id": event.correlation_id,
            "headers": {"x-request-id": "r"},
        }
        for event in events
    ]
    with database("notifications").begin() as connection:
        connection.execute(sqlalchemy.insert(Base.metadata.tables["outbox"]).values([row | values for row in rows]))
    return [str(event.order_id) for event in events]


def test_events_arrive_in_the_order_in_which_they_were_published(publisher, channel):
    ids = [str(new_id()) for _ in range(25)]
    publisher.publish_events(*[("order.shipped", order_id) for order_id in ids])
    eventually(lambda: waiting() == [])
    assert arrived(channel, SHIPPED) == ids


def test_an_unroutable_event_waits_and_delays_no_other(publisher, channel):
    publisher.publish_events(
        ("order.delivered", str(new_id()))
    )  # the publisher is connected, and declares nothing later
    eventually(lambda: arrived(channel, DELIVERED))
    channel.queue_delete(SHIPPED)
    lost, others = str(new_id()), [str(new_id()) for _ in range(3)]
    publisher.publish_events(("order.shipped", lost), *[("order.delivered", order_id) for order_id in others])

    eventually(lambda: (rows := waiting()) and rows[0].attempts >= 1)
    assert [row.event_type for row in waiting()] == ["order.shipped"]
    assert arrived(channel, DELIVERED) == others
    late = str(new_id())
    publisher.publish_events(("order.delivered", late))
    eventually(lambda: arrived(channel, DELIVERED) == [late])

    topology.declare_event_queue(channel, "notifications", OrderShipped)
    eventually(lambda: waiting() == [], timeout=15)
    assert arrived(channel, SHIPPED) == [lost]


def test_events_of_a_crashed_process_are_relayed_by_the_next_one(run_service, publisher, channel):
    left = leave_behind(450)  # more than two batches; no commit wakes the relay
    eventually(lambda: waiting() == [])
    assert arrived(channel, SHIPPED) == left


def test_events_committed_before_the_start_are_relayed(run_service, channel):
    class Late(Publisher):
        """Starts after the crash; run_service emptied the tables for the first process."""

    run_service(Publisher).stop()
    left = leave_behind(3)
    run_service(Late)
    eventually(lambda: waiting() == [])
    assert arrived(channel, SHIPPED) == left


def test_events_that_another_instance_publishes_are_skipped(publisher, channel):
    outbox = Base.metadata.tables["outbox"]
    with database("notifications").connect() as other:
        held = leave_behind(1, due_at=sqlalchemy.text("clock_timestamp() + interval '0.5 s'"))
        other.execute(sqlalchemy.select(outbox).with_for_update())
        mine = leave_behind(1)
        eventually(lambda: arrived(channel, SHIPPED) == mine)
        eventlet.sleep(1.0)  # the locked event is due by now, and the relay has looked again
        assert arrived(channel, SHIPPED) == []
        mine = leave_behind(1)
        eventually(lambda: arrived(channel, SHIPPED) == mine)
        other.rollback()  # it crashed
    eventually(lambda: arrived(channel, SHIPPED) == held)


def test_instances_publish_every_event_once(run_service, publisher, channel):
    run_service(Publisher)
    published = []
    for _ in range(5):
        published += leave_behind(200)
        fresh = [str(new_id()) for _ in range(20)]
        publisher.publish_events(*[("order.shipped", order_id) for order_id in fresh])
        published += fresh
    eventually(lambda: waiting() == [], timeout=20)
    received = arrived(channel, SHIPPED)
    assert set(received) == set(published)
    assert len(received) == len(published)  # without a failure, no event is sent twice


def test_publishing_outside_of_a_transaction_is_an_error(publisher):
    """It was discarded, silently, or published with the next transaction of the worker."""
    assert publisher.publish_outside_of_a_transaction() == "refused"
    assert waiting() == []


def test_a_clock_that_was_set_back_delays_no_event(run_service, publisher, channel):
    orders = leave_behind(3, due_at=sqlalchemy.func.now() + sqlalchemy.text("interval '1 day'"))
    eventually(lambda: not waiting())
    assert arrived(channel, SHIPPED) == orders


def test_one_instance_sweeps_per_interval(run_service, monkeypatch):
    sweeps = []

    def claim(session, table, name, *arguments, **named):
        claimed = claim_timer(session, table, name, *arguments, **named)
        if name == SWEEP:
            sweeps.append(claimed)
        return claimed

    monkeypatch.setattr(timers, "claim", claim)
    began = time.monotonic()
    for _ in range(3):
        run_service(Publisher)
    eventually(lambda: len(sweeps) >= 12)
    assert sum(sweeps) <= time.monotonic() - began + 1
