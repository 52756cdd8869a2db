"""The outbox: every committed event arrives, whatever happens to its neighbours, its process or its queue."""

import json
import time

import eventlet
import pytest
import sqlalchemy

from contracts.events import queue_name
from contracts.ids import new_id
from contracts.orders import OrderDelivered, OrderShipped
from extensions.messaging import topology
from extensions.operations import operations
from extensions.rpc.server import rpc
from extensions.storage import timers
from extensions.storage.timers import claim
from extensions.storage.unit_of_work import Work
from notifications.models import Base
from tests.support import connect, database, eventually

SHIPPED, DELIVERED = queue_name("notifications", OrderShipped), queue_name("notifications", OrderDelivered)
KINDS = {"order.shipped": OrderShipped, "order.delivered": OrderDelivered}


class Teller(operations.Operations):
    """Publishes what it is told to, and listens to nothing: what arrives stays in its queue."""

    name = "notifications"
    work = Work(Base)

    @rpc
    def tell(self, *events):
        for event_type, order_id in events:
            self.work.publish(KINDS[event_type](order_id=order_id, user_id=order_id))


@pytest.fixture
def channel(servers):
    with connect() as connection:
        yield connection.channel()


@pytest.fixture
def teller(run_service, caller):
    run_service(Teller)
    return caller.notifications


def arrived(channel, queue):
    """Take what waits in a queue; returns the orders' ids in their order."""
    orders = []
    while message := channel.basic_get(queue, no_ack=True):
        orders.append(json.loads(message.body)["order_id"])
    return orders


def waiting():
    with database("notifications").connect() as connection:
        return connection.execute(sqlalchemy.text("SELECT event_type, attempts FROM outbox ORDER BY id")).all()


def leave_behind(count, **values):
    """Write committed events into the outbox, as a process did that died before it relayed them."""
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


def test_events_arrive_in_the_order_in_which_they_were_published(teller, channel):
    ids = [str(new_id()) for _ in range(25)]
    teller.tell(*[("order.shipped", order_id) for order_id in ids])
    eventually(lambda: waiting() == [])
    assert arrived(channel, SHIPPED) == ids


def test_an_event_that_no_queue_takes_waits_and_holds_up_no_other(teller, channel):
    teller.tell(("order.delivered", str(new_id())))  # the publisher is connected, and will declare nothing any more
    eventually(lambda: arrived(channel, DELIVERED))
    channel.queue_delete(SHIPPED)
    lost, others = str(new_id()), [str(new_id()) for _ in range(3)]
    teller.tell(("order.shipped", lost), *[("order.delivered", order_id) for order_id in others])

    eventually(lambda: (rows := waiting()) and rows[0].attempts >= 1)
    assert [row.event_type for row in waiting()] == ["order.shipped"]
    assert arrived(channel, DELIVERED) == others
    late = str(new_id())
    teller.tell(("order.delivered", late))
    eventually(lambda: arrived(channel, DELIVERED) == [late])

    topology.declare_event_queue(channel, "notifications", OrderShipped)
    eventually(lambda: waiting() == [], timeout=15)
    assert arrived(channel, SHIPPED) == [lost]


def test_what_a_crashed_process_left_is_relayed_by_the_next_one(run_service, teller, channel):
    left = leave_behind(450)  # more than two batches; nobody wakes the relay
    eventually(lambda: waiting() == [])
    assert arrived(channel, SHIPPED) == left


def test_what_was_left_before_the_start_is_relayed_too(run_service, channel):
    class Late(Teller):
        """Starts after the crash; run_service has emptied the tables before, for the one that crashed."""

    run_service(Teller).stop()
    left = leave_behind(3)
    run_service(Late)
    eventually(lambda: waiting() == [])
    assert arrived(channel, SHIPPED) == left


def test_what_another_replica_is_publishing_is_left_to_it(teller, channel):
    outbox = Base.metadata.tables["outbox"]
    with database("notifications").connect() as other:
        held = leave_behind(1, due_at=sqlalchemy.text("clock_timestamp() + interval '0.5 s'"))
        other.execute(sqlalchemy.select(outbox).with_for_update())
        mine = leave_behind(1)
        eventually(lambda: arrived(channel, SHIPPED) == mine)
        eventlet.sleep(1.0)  # the one that is held is due by now, and the relay has looked again
        assert arrived(channel, SHIPPED) == []
        mine = leave_behind(1)
        eventually(lambda: arrived(channel, SHIPPED) == mine)
        other.rollback()  # it died
    eventually(lambda: arrived(channel, SHIPPED) == held)


def test_replicas_publish_everything_and_leave_nothing(run_service, teller, channel):
    run_service(Teller)
    published = []
    for _ in range(5):
        published += leave_behind(200)
        told = [str(new_id()) for _ in range(20)]
        teller.tell(*[("order.shipped", order_id) for order_id in told])
        published += told
    eventually(lambda: waiting() == [], timeout=20)
    heard = arrived(channel, SHIPPED)
    assert set(heard) == set(published)
    assert len(heard) == len(published)  # nothing went wrong, so nothing was sent twice


def test_a_clock_that_was_set_back_holds_no_event_up(run_service, teller, channel):
    orders = leave_behind(3, due_at=sqlalchemy.func.now() + sqlalchemy.text("interval '1 day'"))
    eventually(lambda: not waiting())
    assert arrived(channel, SHIPPED) == orders


def test_replicas_sweep_once_per_interval_together(run_service, monkeypatch):
    sweeps = []
    monkeypatch.setattr(timers, "claim", lambda *args, **named: sweeps.append(claim(*args, **named)) or sweeps[-1])
    began = time.monotonic()
    for _ in range(3):
        run_service(Teller)
    eventually(lambda: len(sweeps) >= 12)
    assert sum(sweeps) <= time.monotonic() - began + 1
