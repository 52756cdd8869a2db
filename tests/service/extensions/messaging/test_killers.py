"""A message that kills its consumer ends as a dead letter, and takes none of its neighbours along."""

from datetime import UTC, datetime
from decimal import Decimal

import eventlet
import pytest
import sqlalchemy
from nameko.containers import ServiceContainer
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


class Death(DependencyProvider):
    """Kills the container, as a crash would kill its process."""

    def get_dependency(self, worker_ctx):
        def die():
            eventlet.spawn(self.container.kill)
            eventlet.sleep(60)

        return die


class Fragile(operations.Operations):
    """Consumes an event that nothing else of the suite hears, and dies of some."""

    name = "notifications"
    work = Work(Base)
    die = Death()

    @handles(ProductCreated)
    def on_product_created(self, events):
        ids = [str(received.message_id) for received in events]
        if KILLERS.intersection(ids):
            KILLS.append(ids)
            self.die()
        self.work.after_commit(HANDLED.extend, ids)


@pytest.fixture
def service(servers, monkeypatch):
    """Run the service, and start it again whenever it dies, until something is true."""
    prepare("notifications")
    delete_event_queues()  # to be declared anew with another limit
    for known in (HANDLED, KILLERS, KILLS):
        known.clear()
    running = []

    def run_until(done):
        while not done():
            running[:] = [ServiceContainer(Fragile)]
            running[0].start()
            death = eventlet.spawn(running[0].wait)
            eventually(lambda death=death: death.dead or done(), timeout=30)

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


def buried():
    with database("notifications").connect() as connection:
        return connection.execute(sqlalchemy.text("SELECT message_id, queue, error FROM dead_letters")).all()


def declare_queue():
    container = ServiceContainer(Fragile)
    container.start()
    container.stop()


def test_what_kills_its_consumer_every_time_dies_alone(service, bus, monkeypatch):
    monkeypatch.setattr(dead_letters, "MAX_REQUEUES", 1)
    declare_queue()
    before = [bus.publish(product_created()) for _ in range(4)]
    killer = bus.publish(product_created())
    after = [bus.publish(product_created()) for _ in range(6)]
    KILLERS.add(killer)
    service(buried)
    assert [tuple(row) for row in buried()] == [(killer, QUEUE, "dead-lettered by the broker: delivery_limit")]
    service(lambda: len(HANDLED) >= len(before + after))
    assert sorted(HANDLED) == sorted(before + after)
    assert len(KILLS) == 2 * (LIMIT + 1)


def test_a_storm_of_crashes_buries_nobody_who_is_innocent(service, bus):
    declare_queue()
    death = [{"queue": QUEUE, "reason": "delivery_limit", "count": 1, "exchange": "events"}]
    innocent = bus.publish(product_created())
    died = new_id()
    bus.publish_raw(
        "notifications",
        product_created().to_json(),
        exchange=DEAD_LETTERS,
        message_id=str(died),
        application_headers={"x-death": death},
    )
    service(lambda: len(HANDLED) == 2)
    assert set(HANDLED) == {innocent, str(died)}
    assert buried() == []
