"""A message that crashes its consumer becomes a dead letter, and no other message does."""

from datetime import UTC, datetime
from decimal import Decimal

import eventlet
import pytest
import sqlalchemy
from nameko.containers import get_container_cls
from nameko.extensions import DependencyProvider

from contracts.catalog import ProductCreated
from contracts.events import EVENTS, queue_name
from contracts.ids import new_id
from extensions.messaging import dead_letters, topology
from extensions.messaging.event_handler import handles
from extensions.messaging.topology import DEAD_LETTERS
from extensions.operations import operations
from extensions.storage.unit_of_work import Work
from notifications.models import Base
from tests.service.conftest import prepare
from tests.support import connect, database, eventually

LIMIT = 10
QUEUE = queue_name("notifications", ProductCreated)
HANDLED, KILLERS, KILLS = [], set(), []


class Crash(DependencyProvider):
    """Kills the container, as a crash kills its process."""

    def get_dependency(self, worker_ctx):
        def crash():
            eventlet.spawn(self.container.kill)
            eventlet.sleep(60)

        return crash


class Fragile(operations.Operations):
    """Consumes an event that no other service consumes, and crashes on some messages."""

    name = "notifications"
    work = Work(Base)
    crash = Crash()

    @handles(ProductCreated)
    def on_product_created(self, events):
        ids = [str(received.message_id) for received in events]
        if KILLERS.intersection(ids):
            KILLS.append(ids)
            self.crash()
        self.work.after_commit(HANDLED.extend, ids)


@pytest.fixture
def service(servers, monkeypatch):
    """Run the service, and restart it after each crash, until a condition is true."""
    prepare("notifications")
    delete_event_queues()  # to be declared with another limit
    for known in (HANDLED, KILLERS, KILLS):
        known.clear()
    running = []

    def run_until(done):
        while not done():
            running[:] = [get_container_cls()(Fragile)]
            running[0].start()
            crash = eventlet.spawn(running[0].wait)
            eventually(lambda crash=crash: crash.dead or done(), timeout=30)

    monkeypatch.setattr(topology, "DELIVERY_LIMIT", LIMIT)
    yield run_until
    for container in running:
        container.stop()
    delete_event_queues()


def delete_event_queues():
    with connect() as connection:
        channel = connection.channel()
        for queue in [QUEUE, *(queue_name(service, event) for event in EVENTS.values() for service in event.consumers)]:
            channel.queue_delete(queue)


def product_created():
    return ProductCreated(
        id=new_id(),
        sku="THING-1",
        name="Thing",
        description="",
        price=Decimal("1.00"),
        currency="TRY",
        is_active=True,
        version=1,
        created_at=datetime.now(UTC),
        updated_at=datetime.now(UTC),
    )


def dead_lettered():
    with database("notifications").connect() as connection:
        return connection.execute(sqlalchemy.text("SELECT message_id, queue, error FROM dead_letters")).all()


def declare_queue():
    container = get_container_cls()(Fragile)
    container.start()
    container.stop()


def test_only_the_message_that_crashes_its_consumer_becomes_a_dead_letter(service, bus, monkeypatch):
    monkeypatch.setattr(dead_letters, "MAX_REQUEUES", 1)
    declare_queue()
    before = [bus.publish(product_created()) for _ in range(4)]
    killer = bus.publish(product_created())
    after = [bus.publish(product_created()) for _ in range(6)]
    KILLERS.add(killer)
    service(dead_lettered)
    assert [tuple(row) for row in dead_lettered()] == [(killer, QUEUE, "dead-lettered by the broker: delivery_limit")]
    service(lambda: len(HANDLED) >= len(before + after))
    assert sorted(HANDLED) == sorted(before + after)
    assert len(KILLS) == 2 * (LIMIT + 1)


def test_messages_that_reach_the_delivery_limit_by_unrelated_crashes_are_handled(service, bus):
    declare_queue()
    x_death = [{"queue": QUEUE, "reason": "delivery_limit", "count": 1, "exchange": "events"}]
    harmless = bus.publish(product_created())
    requeued = new_id()
    bus.publish_raw(
        "notifications",
        product_created().to_json(),
        exchange=DEAD_LETTERS,
        message_id=str(requeued),
        application_headers={"x-death": x_death},
    )
    service(lambda: len(HANDLED) == 2)
    assert set(HANDLED) == {harmless, str(requeued)}
    assert dead_lettered() == []
