"""Metrics of failures: retries, dead letters, and an outbox with a backlog."""

import eventlet
import pytest
import sqlalchemy
from nameko import config

from contracts.events import queue_name
from contracts.ids import new_id
from contracts.orders import OrderShipped
from extensions.messaging import outbox_relay as outbox
from extensions.messaging import topology
from extensions.messaging.event_handler import handles
from extensions.operations import operations
from extensions.rpc.server import rpc
from extensions.storage.unit_of_work import Work
from notifications.models import Base
from qa.support.free_ports import free_ports
from tests.scrape import Scrape
from tests.support import database, eventually

QUEUE = queue_name("notifications", OrderShipped)
HANDLER = {"handler": "on_order_shipped"}
FAILS = set()


class Recorder(operations.Operations):
    """Consumes one event in the place of notifications; fails on demand."""

    name = "notifications"
    work = Work(Base)

    @handles(OrderShipped)
    def on_order_shipped(self, events):
        if FAILS & {str(received.event.order_id) for received in events}:
            raise RuntimeError("fails on demand")

    @rpc(transaction=False)
    def hold(self, seconds):
        with self.work.transaction() as session:
            session.execute(sqlalchemy.text("SELECT 1"))
            eventlet.sleep(seconds)

    @rpc
    def fail(self):
        raise RuntimeError("a defect")


@pytest.fixture
def scrape(run_service, monkeypatch):
    """Start the service; returns a function that scrapes it."""
    FAILS.clear()
    monkeypatch.setattr(outbox, "BACKLOG_SECONDS", 0.05)
    (port,) = free_ports(1)
    with config.patch({"METRICS_ADDRESSES": {"notifications": f"127.0.0.1:{port}"}}):
        run_service(Recorder)
        yield lambda: Scrape(port)


def shipped():
    return OrderShipped(order_id=new_id(), user_id=new_id())


def test_failures_retries_and_dead_letters_are_counted(scrape, bus):
    good, bad = shipped(), shipped()
    FAILS.add(str(bad.order_id))
    bus.publish(bad)
    bus.publish(good)
    bus.publish_raw("order.shipped", "no JSON", message_id=str(new_id()), type="order.shipped")
    seen = eventually(lambda: (seen := scrape())("suite_dead_letters_total") == 2 and seen, timeout=20)
    tries = len(topology.retry_delays()) + 1
    assert seen("suite_dead_letters_total", queue=QUEUE) == 2
    assert seen("suite_events_failed_total", **HANDLER) == tries
    assert seen("suite_events_retried_total", **HANDLER) == tries - 1
    assert seen("suite_events_handled_total", **HANDLER) == 1


def test_an_event_without_a_time_in_its_id_has_no_age(scrape, bus):
    bus.publish(shipped(), message_id="5f0c2a37-8f0b-4c5e-9d26-0d8b5a6b9a10")
    seen = eventually(lambda: (seen := scrape())("suite_events_handled_total", **HANDLER) == 1 and seen)
    assert seen("suite_events_age_seconds_count", **HANDLER) == 0


def test_the_backlog_of_the_outbox_is_exported(scrape):
    row = {
        "event_type": "order.shipped",
        "body": shipped().to_json(),
        "correlation_id": "c",
        "headers": {},
        "due_at": sqlalchemy.text("clock_timestamp() + interval '30 s'"),
        "created_at": sqlalchemy.text("clock_timestamp() - interval '90 s'"),
    }
    eventually(lambda: scrape()("suite_outbox_backlog") == 0)
    assert scrape()("suite_outbox_oldest_seconds") == 0
    table = Base.metadata.tables["outbox"]
    with database("notifications").begin() as connection:
        connection.execute(sqlalchemy.insert(table).values([row | {"message_id": new_id()} for _ in range(3)]))
    seen = eventually(lambda: (seen := scrape())("suite_outbox_backlog") == 3 and seen)
    assert 90 <= seen("suite_outbox_oldest_seconds") < 120
    with database("notifications").begin() as connection:
        connection.execute(sqlalchemy.update(table).values(due_at=sqlalchemy.func.clock_timestamp()))
    eventually(lambda: scrape()("suite_outbox_backlog") == 0)
    eventually(lambda: scrape()("suite_outbox_relayed_total", event="other") == 3)  # notifications publishes no events


def test_connections_and_workers_in_use_are_exported(scrape, caller):
    holders = [eventlet.spawn(caller.notifications.hold, 1.0) for _ in range(2)]
    in_use = "suite_workers_busy", "suite_database_connections_in_use"
    eventually(lambda: (seen := scrape()) and min(map(seen, in_use)) >= 2)
    for holder in holders:
        holder.wait()
    assert scrape()("suite_rpc_served_seconds_count", method="hold", outcome="ok") == 2
    assert scrape()("suite_rpc_served_seconds_sum", method="hold") >= 2.0


def test_a_defect_is_counted_as_failed(scrape, caller):
    with pytest.raises(Exception, match="wrong on our side"):
        caller.notifications.fail()
    assert scrape()("suite_rpc_served_seconds_count", method="fail", outcome="failed") == 1
