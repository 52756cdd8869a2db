"""The hazards of a saga on a part of the suite: concurrent transactions, a crash at one line, a broker outage.

tests/e2e/test_hazards.py tests the hazards on the running processes.
"""

import random
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal

import eventlet
import pytest
import sqlalchemy
from sqlalchemy.orm import sessionmaker

from contracts.base import Received
from contracts.errors import InvalidState
from contracts.events import queue_name
from contracts.ids import new_id
from contracts.inventory import StockReserved
from contracts.orders import OrderCreated, OrderDelivered, OrderLine, OrderShipped
from contracts.payments import PaymentAuthorized
from extensions.messaging import event_handler as events
from extensions.messaging.event_handler import handles
from extensions.messaging.listener import Listener
from extensions.messaging.publisher import ConfirmedPublisher, OutgoingMessage
from extensions.operations import operations
from extensions.storage.unit_of_work import Work
from inventory import use_cases as inventory
from notifications.models import Base
from orders import use_cases as orders
from orders.models import Order as OrderRow
from orders.pricing import PricedOrder
from orders.saga import Command
from payments import queries as payment_queries
from payments import use_cases as payments
from tests.support import connect, database, empty_database, eventually

QUEUE, DELIVERED = queue_name("notifications", OrderShipped), queue_name("notifications", OrderDelivered)
HANDLED = []
DOORS = {}
DEADLOCKS = {}


class Consumer(operations.Operations):
    """Consumes one event and publishes another; replaces notifications."""

    name = "notifications"
    work = Work(Base)

    @handles(OrderShipped)
    def on_order_shipped(self, events):
        for received in events:
            order_id = str(received.event.order_id)
            if DEADLOCKS.get(order_id):
                DEADLOCKS[order_id] -= 1
                self.work.session.execute(sqlalchemy.text("DO $$ BEGIN RAISE SQLSTATE '40P01'; END $$"))
            if order_id in DOORS:
                DOORS.pop(order_id).wait()
            HANDLED.append(order_id)
            self.work.publish(OrderDelivered(order_id=received.event.order_id, user_id=new_id()), cause=received)


class Speaker(operations.Operations):
    """Publishes events and consumes none."""

    name = "notifications"
    work = Work(Base)


@pytest.fixture(autouse=True)
def nothing_yet():
    HANDLED.clear()
    DOORS.clear()
    DEADLOCKS.clear()


def shipped():
    return OrderShipped(order_id=new_id(), user_id=new_id())


def unit_of_work(container):
    (work,) = [one for one in container.dependencies if one.attr_name == "work"]
    return work.get_dependency(None)


def commit(container, event):
    work = unit_of_work(container)
    with work.transaction():
        work.publish(event)


def received(event):
    return Received(event, new_id(), "request", "trace")


def at_once(service, first, second):
    """Run `first(session)` in a transaction that stays open for a while, and `second(session)` during that time.

    Returns the error of the second, or None.
    """
    started = eventlet.Event()

    def slow():
        with sessionmaker(database(service)).begin() as session:
            first(session)
            session.flush()
            started.send()
            eventlet.sleep(0.4)

    slowly = eventlet.spawn(slow)
    started.wait(timeout=5)
    failure = None
    try:
        with sessionmaker(database(service)).begin() as session:
            second(session)
    except Exception as error:  # noqa: BLE001  (the caller examines it)
        failure = error
    slowly.wait()
    return failure


class Order:
    """An order in the database of orders, and the events published for it."""

    def __init__(self, stock="PENDING", status="CREATED"):
        self.announced = []
        line = OrderLine(product_id=new_id(), product_sku="S", quantity=1, price_snapshot=Decimal("1.00"))
        with sessionmaker(database("orders")).begin() as session:
            priced = PricedOrder((line,), Decimal("1.00"))
            new = [orders.NewOrder(priced, new_id())]
            self.id = orders.create_orders(session, new, "TRY", timedelta(seconds=30), self.publish)[0].id
            row = session.get(OrderRow, self.id)
            row.stock_status, row.status = stock, status

    def publish(self, event, cause=None):
        self.announced.append(event.event_type)
        return new_id()

    def reserved(self, session):
        orders.apply_replies(session, [received(StockReserved(order_id=self.id))], self.publish)

    def authorized(self, session):
        event = PaymentAuthorized(
            order_id=self.id, payment_id=new_id(), transaction_reference="r", amount=Decimal("1.00"), currency="TRY"
        )
        orders.apply_replies(session, [received(event)], self.publish)

    def apply_command(self, command):
        return lambda session: orders.command_order(session, self.id, command, self.publish)

    def status(self):
        with database("orders").connect() as connection:
            found = sqlalchemy.text("SELECT status FROM orders WHERE id = :id")
            return connection.scalar(found, {"id": self.id})


@pytest.fixture
def empty_orders(servers):
    empty_database("orders")


@pytest.mark.usefixtures("empty_orders")
class TestOneOrder:
    def test_h4_both_positive_replies_in_two_workers_confirm_it(self):
        order = Order()
        assert at_once("orders", order.reserved, order.authorized) is None
        assert order.status() == "CONFIRMED"
        assert order.announced == ["order.created", "order.confirmed"]

    def test_h11_a_cancellation_wins_over_a_later_confirmation(self):
        order = Order(stock="RESERVED")
        assert at_once("orders", order.apply_command(Command.CANCEL_BY_USER), order.authorized) is None
        assert order.status() == "CANCELLED"
        assert order.announced == ["order.created", "order.cancelled"]

    def test_h11_a_shipment_wins_over_a_later_cancellation(self):
        order = Order(stock="COMMITTED", status="CONFIRMED")
        failure = at_once("orders", order.apply_command(Command.SHIP), order.apply_command(Command.CANCEL_BY_USER))
        assert isinstance(failure, InvalidState)
        assert order.status() == "SHIPPED"


def test_h5_the_provider_gets_the_same_key_for_every_request_of_an_order(servers):
    empty_database("payments")
    line = OrderLine(product_id=new_id(), product_sku="SKU", quantity=1, price_snapshot=Decimal(1))
    order = OrderCreated(order_id=new_id(), user_id=new_id(), total_amount=Decimal(1), currency="TRY", items=(line,))
    with sessionmaker(database("payments")).begin() as session:
        payments.apply_order_events(session, [Received(order, new_id(), "request", "trace")])
        [(payment_id,)] = session.execute(sqlalchemy.text("SELECT id FROM payments"))
        # The call is repeated after a crash, or by another instance.
        calls = [payment_queries.calls_of(session, [payment_id])[payment_id] for _ in range(2)]
    assert len({call.key for call in calls}) == 1


def test_h6_a_crash_between_commit_and_ack_repeats_nothing(run_service, bus, monkeypatch):
    consumer, acks = run_service(Consumer), []

    def crash_once(channel, tag, **how):
        acks.append(tag)
        if len(acks) == 1:
            consumer.shared_extensions[Listener]._connection.connection.collect()
        else:
            ack(channel, tag, **how)

    ack = events.ack
    monkeypatch.setattr(events, "ack", crash_once)
    event = shipped()
    bus.publish(event)
    eventually(lambda: len(acks) >= 2)
    eventually(lambda: bus.is_drained(QUEUE))
    assert [str(event.order_id)] == HANDLED
    assert len(bus.wait_for("order.delivered", str(event.order_id))) == 1


def test_h6_a_crash_before_the_commit_loses_nothing(run_service, bus):
    first, event = run_service(Consumer), shipped()
    door = DOORS[str(event.order_id)] = eventlet.Event()
    bus.publish(event)
    eventually(lambda: not DOORS)  # the handler is running
    first.kill()
    door.send()
    assert HANDLED == []
    run_service(Consumer)
    bus.wait_for("order.delivered", str(event.order_id))
    assert [str(event.order_id)] == HANDLED


def test_h7_events_committed_during_a_broker_outage_arrive(broker_outage, run_service):
    speaker, event = run_service(Speaker), shipped()
    commit(speaker, shipped())  # the relay is connected
    with broker_outage():
        commit(speaker, event)
        eventlet.sleep(1.0)  # the relay tries to publish and fails
    eventually(lambda: str(event.order_id) in arrived(QUEUE), timeout=30)


def test_h7_messages_refused_by_the_broker_do_not_count_as_delivered(run_service):
    publisher = run_service(Speaker).shared_extensions[ConfirmedPublisher]
    with connect() as connection:
        small = {"x-max-length": 1, "x-overflow": "reject-publish"}
        queue = connection.channel().queue_declare("small", exclusive=False, arguments=small).queue
        try:
            outcome = publisher.publish([OutgoingMessage("", queue, "{}", str(number)) for number in range(5)])
            assert outcome.refused
            assert set(outcome.refused) == {str(number) for number in range(5 - len(outcome.refused), 5)}
            assert outcome.confirmed == {str(number) for number in range(5 - len(outcome.refused))}
        finally:
            connection.channel().queue_delete(queue)


def test_h8_the_queues_exist_before_the_first_event(run_service):
    run_service(Speaker).stop()
    with connect() as connection:
        connection.channel().queue_delete(QUEUE)
    event = shipped()
    commit(run_service(Speaker), event)
    eventually(lambda: str(event.order_id) in arrived(QUEUE))


def arrived(queue):
    """The messages in a queue, which are requeued; none while the broker or the queue is unavailable."""
    found = ""
    with suppress(Exception), connect() as connection:
        channel = connection.channel()
        while message := channel.basic_get(queue):
            found += bytes(message.body).decode() if isinstance(message.body, bytes | memoryview) else message.body
    return found


def test_h13_a_deadlock_is_retried_without_a_limit(run_service, bus):
    run_service(Consumer)
    event = shipped()
    DEADLOCKS[str(event.order_id)] = 6  # more than the retries of other failures
    bus.publish(event)
    bus.wait_for("order.delivered", str(event.order_id))
    with database("notifications").connect() as connection:
        assert connection.scalar(sqlalchemy.text("SELECT count(*) FROM dead_letters")) == 0


def test_h13_orders_of_the_same_products_do_not_deadlock(servers):
    products = [Stock(quantity=1000, keep=number > 0) for number in range(8)]
    failures = []

    def buy(seed):
        chance = random.Random(seed)
        for _ in range(6):
            chance.shuffle(products)
            try:
                with sessionmaker(database("inventory")).begin() as session:
                    products[0].buy(session, *products[1:])
            except sqlalchemy.exc.DBAPIError as error:
                failures.append(error)

    for greenlet in [eventlet.spawn(buy, seed) for seed in range(10)]:
        greenlet.wait()
    assert failures == []


class Stock:
    """The last unit of a product."""

    def __init__(self, quantity=1, *, keep=False):
        if not keep:
            empty_database("inventory")
        self.product = new_id()
        self.said = []
        self.execute(f"INSERT INTO stock (product_id, product_sku, on_hand) VALUES (:id, 'S', {quantity})")

    def execute(self, statement):
        with database("inventory").begin() as connection:
            connection.execute(sqlalchemy.text(statement), {"id": self.product})

    def buy(self, session, *others):
        lines = tuple(
            OrderLine(product_id=stock.product, product_sku="S", quantity=1, price_snapshot=Decimal("1.00"))
            for stock in (self, *others)
        )
        order = OrderCreated(
            order_id=new_id(), user_id=new_id(), total_amount=Decimal("1.00"), currency="TRY", items=lines
        )
        inventory.apply_order_events(
            session, [received(order)], lambda event, _cause: self.said.append(event.event_type)
        )


def test_h14_the_last_unit_is_sold_once(servers):
    stock = Stock()
    assert at_once("inventory", stock.buy, stock.buy) is None
    assert sorted(stock.said) == ["inventory.stock_failed", "inventory.stock_reserved"]
    with database("inventory").connect() as connection:
        assert connection.execute(sqlalchemy.text("SELECT on_hand, reserved FROM stock")).all() == [(1, 1)]


@pytest.mark.parametrize("change", ["reserved = 2", "reserved = -1", "on_hand = -1"])
def test_h14_the_database_refuses_impossible_stock(servers, change):
    stock = Stock()
    with pytest.raises(sqlalchemy.exc.IntegrityError, match="reserved_within_on_hand"):
        stock.execute(f"UPDATE stock SET {change} WHERE product_id = :id")
