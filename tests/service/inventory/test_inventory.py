"""Inventory in a real container: its RPC methods, its handlers, its ledger, and races between them."""

import random
from collections import Counter
from decimal import Decimal
from uuid import UUID

import eventlet
import pytest
from sqlalchemy import text
from sqlalchemy.orm import sessionmaker

from contracts.base import Received
from contracts.errors import IdempotencyKeyReused, PermissionDenied, ValidationFailed
from contracts.events import handler_name
from contracts.ids import new_id
from contracts.inventory import StockIsReserved, StockNotFound
from contracts.orders import CancelReason, OrderCancelled, OrderConfirmed, OrderCreated, OrderLine
from inventory import use_cases
from inventory.service import InventoryService
from tests.support import database, eventually

CUSTOMER = {"user_id": str(new_id()), "roles": ["customer"]}
ADMIN = {"user_id": str(new_id()), "roles": ["customer", "admin"]}
USER = new_id()


@pytest.fixture
def inventory(shared_services, caller):
    shared_services(InventoryService)
    return caller.inventory


@pytest.fixture
def product(inventory):
    """Returns a function that makes a product with stock and returns its id."""

    def make(quantity=10, sku="SKU-1"):
        product_id = replica(sku)
        inventory.set_stock(product_id, sku, quantity)
        return product_id

    return make


@pytest.fixture
def rows(inventory):
    """Returns a function that reads the database."""
    engine = database("inventory")

    def read(statement, **parameters):
        with engine.connect() as connection:
            return connection.execute(text(statement), parameters).all()

    return read


def replica(sku, product_id=None):
    """Let inventory know a product; returns its id."""
    product_id = product_id or new_id()
    with database("inventory").begin() as connection:
        connection.execute(
            text("INSERT INTO product_replicas (id, sku, version) VALUES (:id, :sku, 1)"),
            {"id": product_id, "sku": sku},
        )
    return str(product_id)


def created(*lines, order_id=None):
    items = tuple(
        OrderLine(product_id=product_id, product_sku="SKU-1", quantity=quantity, price_snapshot=Decimal("1.00"))
        for product_id, quantity in lines
    )
    total = Decimal(sum(item.quantity for item in items))
    return OrderCreated(order_id=order_id or new_id(), user_id=USER, total_amount=total, currency="TRY", items=items)


def confirmed(order):
    return OrderConfirmed(
        order_id=order.order_id, user_id=USER, total_amount=order.total_amount, currency=order.currency
    )


def cancelled(order):
    return OrderCancelled(order_id=order.order_id, user_id=USER, reason=CancelReason.USER)


def has_handled(rows, event, messages=1):
    """Check whether the inbox holds this number of messages of this kind of event."""
    return len(rows("SELECT FROM inbox WHERE handler = :handler", handler=handler_name(type(event)))) == messages


def levels(inventory, product_id):
    stock = inventory.get_stock(product_id)
    return stock["on_hand"], stock["reserved"], stock["available"]


def assert_tables_agree(rows):
    """Assert that the ledger, the reservations and the stock are consistent."""
    wrong = rows(
        """
        SELECT stock.product_id FROM stock
        LEFT JOIN (SELECT product_id, sum(on_hand_delta) AS on_hand, sum(reserved_delta) AS reserved
                   FROM movements GROUP BY product_id) AS ledger USING (product_id)
        LEFT JOIN (SELECT product_id, sum(quantity) FILTER (WHERE status = 'RESERVED') AS held,
                          sum(quantity) FILTER (WHERE status = 'COMMITTED') AS gone
                   FROM reservation_lines JOIN reservations USING (order_id) GROUP BY product_id) AS orders
               USING (product_id)
        LEFT JOIN (SELECT product_id, sum(on_hand_delta) AS people FROM movements WHERE order_id IS NULL
                   GROUP BY product_id) AS set_by USING (product_id)
        WHERE stock.on_hand <> ledger.on_hand OR stock.reserved <> ledger.reserved
           OR stock.reserved <> coalesce(held, 0) OR stock.on_hand <> people - coalesce(gone, 0)
        """
    )
    assert wrong == []
    broken = rows(
        """
        SELECT id FROM (SELECT id, on_hand, reserved,
                               sum(on_hand_delta) OVER ledger AS on_hand_so_far,
                               sum(reserved_delta) OVER ledger AS reserved_so_far
                        FROM movements WINDOW ledger AS (PARTITION BY product_id ORDER BY entry)) AS running
        WHERE on_hand <> on_hand_so_far OR reserved <> reserved_so_far
        """
    )
    assert broken == [], "an entry's balance is not the sum of the entries up to it"


class TestStock:
    def test_is_first_created_and_then_set(self, inventory):
        product_id = replica("SKU-1")
        first = inventory.set_stock(product_id, "SKU-1", 5, actor=ADMIN)
        again = inventory.set_stock(product_id, quantity=7, actor=ADMIN)
        assert (first.pop("created"), again.pop("created")) == (True, False)
        assert again == inventory.get_stock(product_id)
        assert (again["product_sku"], again["on_hand"], again["reserved"], again["available"]) == ("SKU-1", 7, 0, 7)
        assert again["updated_at"] > first["updated_at"]

    def test_only_an_existing_level_can_be_changed(self, inventory, product):
        assert inventory.change_stock_level(product(5), 3, actor=ADMIN)["on_hand"] == 3
        with pytest.raises(StockNotFound):
            inventory.change_stock_level(str(new_id()), 3)

    def test_is_adjusted_with_a_reason(self, inventory, product, rows):
        product_id = product(5)
        assert inventory.adjust_stock(product_id, -2, "broken", actor=ADMIN)["on_hand"] == 3
        with pytest.raises(StockIsReserved):
            inventory.adjust_stock(product_id, -4, "broken")
        with pytest.raises(StockNotFound):
            inventory.adjust_stock(str(new_id()), 1, "found")
        assert levels(inventory, product_id) == (3, 0, 3)
        assert_tables_agree(rows)

    def test_cannot_be_set_below_what_is_reserved(self, inventory, product, bus):
        product_id = product(5)
        bus.publish(created((product_id, 3)))
        bus.wait_for("inventory.stock_reserved")
        for change in (
            lambda: inventory.set_stock(product_id, "SKU-1", 2),
            lambda: inventory.change_stock_level(product_id, 2),
            lambda: inventory.adjust_stock(product_id, -3, "broken"),
        ):
            with pytest.raises(StockIsReserved, match="less than the 3"):
                change()
        assert inventory.change_stock_level(product_id, 3)["available"] == 0

    @pytest.mark.parametrize("quantity", [-1, 10**9 + 1, 1.5, "1", None, True])
    def test_level_is_validated(self, inventory, quantity):
        with pytest.raises(ValidationFailed, match="quantity"):
            inventory.set_stock(str(new_id()), "SKU-1", quantity)

    def test_is_for_administrators_only(self, inventory, product):
        product_id, unknown = product(), str(new_id())
        for call in (
            lambda: inventory.list_stock(actor=CUSTOMER),
            lambda: inventory.get_stock(unknown, actor=CUSTOMER),
            lambda: inventory.set_stock(product_id, "SKU-1", 1, actor=CUSTOMER),
            lambda: inventory.change_stock_level(unknown, 1, actor=CUSTOMER),
            lambda: inventory.adjust_stock(unknown, 1, "mine", actor=CUSTOMER),
            lambda: inventory.list_movements(unknown, actor=CUSTOMER),
        ):
            with pytest.raises(PermissionDenied):
                call()
        assert inventory.get_stock(product_id, actor=ADMIN)["on_hand"] == 10

    def test_is_listed_in_pages(self, inventory, product):
        ids = [product() for _ in range(5)]
        page = inventory.list_stock(limit=3)
        rest = inventory.list_stock(limit=3, cursor=page["next_cursor"], actor=ADMIN)
        assert [item["product_id"] for item in page["items"] + rest["items"]] == ids[::-1]
        assert rest["next_cursor"] is None

    def test_the_newest_is_listed_first_regardless_of_its_id(self, inventory):
        ids = [replica(f"SKU-{number}", UUID(int=number, version=4)) for number in (3, 1, 2)]
        for product_id in ids:
            inventory.set_stock(product_id, quantity=1)
        inventory.set_stock(ids[0], quantity=2)  # a change does not make it newer
        assert [item["product_id"] for item in inventory.list_stock()["items"]] == ids[::-1]

    def test_an_adjustment_is_applied_once_per_key(self, inventory, product):
        product_id = product(5)
        first = inventory.adjust_stock(product_id, 2, "found", idempotency_key="k")
        assert inventory.adjust_stock(product_id, 2, "found", idempotency_key="k") == first
        assert levels(inventory, product_id) == (7, 0, 7)
        with pytest.raises(IdempotencyKeyReused):
            inventory.adjust_stock(product_id, 3, "found", idempotency_key="k")


class TestAnOrder:
    def test_is_reserved_and_committed(self, inventory, product, bus, rows):
        a, b = product(10), product(5)
        order = created((a, 2), (b, 5), (a, 1))
        message_id = bus.publish(order, application_headers={"x-request-id": "r-1"})
        bus.wait_for("inventory.stock_reserved", order.order_id)
        assert (levels(inventory, a), levels(inventory, b)) == ((10, 3, 7), (5, 5, 0))
        answer = next(each for each in bus.messages if each.properties.get("type") == "inventory.stock_reserved")
        assert (answer.headers["x-request-id"], answer.headers["causation-id"]) == ("r-1", message_id)

        bus.publish(confirmed(order))
        bus.wait_for("inventory.stock_committed", order.order_id)
        assert (levels(inventory, a), levels(inventory, b)) == ((7, 0, 7), (0, 0, 0))
        assert_tables_agree(rows)

    def test_is_released(self, inventory, product, bus, rows):
        a = product(10)
        order = created((a, 4))
        bus.publish(order)
        bus.wait_for("inventory.stock_reserved", order.order_id)
        bus.publish(cancelled(order))
        [event] = bus.wait_for("inventory.stock_released", order.order_id)
        assert event.returned is False
        assert levels(inventory, a) == (10, 0, 10)
        assert_tables_agree(rows)

    def test_is_returned_after_it_was_committed(self, inventory, product, bus, rows):
        a = product(10)
        order = created((a, 4))
        bus.publish(order)
        bus.wait_for("inventory.stock_reserved", order.order_id)
        bus.publish(confirmed(order))
        bus.wait_for("inventory.stock_committed", order.order_id)
        bus.publish(cancelled(order))
        [event] = bus.wait_for("inventory.stock_released", order.order_id)
        assert event.returned is True
        assert levels(inventory, a) == (10, 0, 10)
        assert_tables_agree(rows)
        entries = inventory.list_movements(a)["items"]
        assert [(entry["kind"], entry["on_hand_delta"], entry["reserved_delta"]) for entry in entries] == [
            ("RETURNED", 4, 0),
            ("COMMITTED", -4, -4),
            ("RESERVED", 0, 4),
            ("FIRST", 10, 0),
        ]
        assert {entry["order_id"] for entry in entries} == {str(order.order_id), None}

    def test_fails_completely_if_one_line_is_short(self, inventory, product, bus, rows):
        a, b, unknown = product(10), product(3), str(new_id())
        order = created((a, 1), (b, 2), (b, 2), (unknown, 1))
        bus.publish(order)
        [event] = bus.wait_for("inventory.stock_failed", order.order_id)
        assert {(str(each.product_id), each.requested, each.available) for each in event.shortages} == {
            (b, 4, 3),
            (unknown, 1, 0),
        }
        assert (levels(inventory, a), levels(inventory, b)) == ((10, 0, 10), (3, 0, 3))
        bus.publish(cancelled(order))
        eventually(lambda: has_handled(rows, cancelled(order)))
        assert bus.events("inventory.stock_released") == []
        assert_tables_agree(rows)

    def test_cancelled_before_it_was_created_reserves_nothing(self, inventory, product, bus, rows):
        a = product(10)
        order = created((a, 4))
        bus.publish(cancelled(order))
        eventually(lambda: rows("SELECT FROM reservations"))
        bus.publish(order)
        eventually(lambda: has_handled(rows, order))
        bus.publish(confirmed(order))  # changes nothing either
        eventually(lambda: has_handled(rows, confirmed(order)))
        assert rows("SELECT status FROM reservations") == [("CANCELLED_BEFORE",)]
        assert levels(inventory, a) == (10, 0, 10)
        assert [event for event in bus.events() if event.producer == "inventory"] == []

    def test_counts_once_however_often_its_events_are_delivered(self, inventory, product, bus, rows):
        a = product(10)
        order = created((a, 4))
        for event in (order, confirmed(order), cancelled(order)):
            message_id = bus.publish(event)
            bus.publish(event, message_id=message_id)  # the same message again
            bus.publish(event)  # the same event as another message
            eventually(lambda event=event: has_handled(rows, event, 2))
        bus.wait_for("inventory.stock_released", order.order_id)
        said = Counter(type(event).event_type for event in bus.events() if event.producer == "inventory")
        assert said == {
            "inventory.stock_reserved": 1,
            "inventory.stock_committed": 1,
            "inventory.stock_released": 1,
        }
        assert levels(inventory, a) == (10, 0, 10)
        assert_tables_agree(rows)

    def test_confirmed_but_unknown_is_a_dead_letter_and_blocks_no_other(self, inventory, product, bus, rows):
        a = product(10)
        good, lost = created((a, 1)), created((a, 1))
        bus.publish(good)
        bus.wait_for("inventory.stock_reserved", good.order_id)
        bus.publish(confirmed(lost))
        bus.publish(confirmed(good))
        bus.wait_for("inventory.stock_committed", good.order_id)
        [dead] = eventually(lambda: inventory.list_dead_letters()["items"])
        assert dead["queue"] == "inventory.on_order_confirmed"
        assert dead["error"].startswith("ReservationMissing")
        assert dead["correlation_id"] is None or dead["correlation_id"] == str(lost.order_id)

        bus.publish(lost)  # the lost order arrives, and the dead letter is replayed
        bus.wait_for("inventory.stock_reserved", lost.order_id)
        inventory.replay_dead_letter(dead["id"])
        bus.wait_for("inventory.stock_committed", lost.order_id)
        assert levels(inventory, a) == (8, 0, 8)
        assert_tables_agree(rows)


def handle(*events, hold=0.0, started=None):
    """Run a use case in its own transaction, as another instance would; keep it open for `hold` seconds."""
    received = [Received(event, new_id(), "request", "trace") for event in events]
    with sessionmaker(database("inventory")).begin() as session:
        use_cases.apply_order_events(session, received, lambda *_: None)
        if started:
            started.send()
        eventlet.sleep(hold)


class TestRaces:
    def test_created_and_cancelled_at_the_same_time(self, inventory, product, rows):
        """Both handlers for an order without a row, while the transaction of the first is kept open."""
        a = product(10)
        for is_created_first in (True, False):
            order = created((a, 4))
            first, second = (order, cancelled(order)) if is_created_first else (cancelled(order), order)
            started = eventlet.Event()
            slow = eventlet.spawn(handle, first, hold=0.3, started=started)
            started.wait(timeout=5)
            quick = eventlet.spawn(handle, second)
            slow.wait()
            quick.wait()
            assert levels(inventory, a) == (10, 0, 10)
        statuses = rows("SELECT status FROM reservations ORDER BY created_at")
        assert statuses == [("RELEASED",), ("CANCELLED_BEFORE",)]
        assert_tables_agree(rows)

    def test_batches_with_the_same_products_in_any_sequence_do_not_deadlock(self, inventory, product, rows):
        products = [product(10_000) for _ in range(6)]
        chance = random.Random(7)
        orders = [created(*((p, 1) for p in chance.sample(products, 4))) for _ in range(120)]

        def work(seed):
            mine = orders.copy()
            random.Random(seed).shuffle(mine)
            make = [lambda order: order, cancelled][seed % 2]
            for start in range(0, len(mine), 20):
                handle(*(make(order) for order in mine[start : start + 20]))

        for greenlet in [eventlet.spawn(work, seed) for seed in range(6)]:
            greenlet.wait()
        found = Counter(status for (status,) in rows("SELECT status FROM reservations"))
        assert sum(found.values()) == 120
        assert set(found) <= {"RELEASED", "CANCELLED_BEFORE"}
        assert all(levels(inventory, each) == (10_000, 0, 10_000) for each in products)
        assert_tables_agree(rows)

    def test_a_product_in_high_demand_is_not_oversold(self, inventory, product, bus, rows):
        hot = product(20)
        orders = [created((hot, 1)) for _ in range(100)]
        changing = eventlet.spawn(lambda: [inventory.adjust_stock(hot, 1, "found") for _ in range(10)])
        for order in orders:
            bus.publish(order)
        changing.wait()
        eventually(
            lambda: len(bus.events("inventory.stock_reserved")) + len(bus.events("inventory.stock_failed")) == 100
        )
        reserved = {event.order_id for event in bus.events("inventory.stock_reserved")}
        on_hand, held, _ = levels(inventory, hot)
        assert (on_hand, held) == (30, len(reserved))
        assert 20 <= held <= 30
        for number, order in enumerate(order for order in orders if order.order_id in reserved):
            bus.publish(cancelled(order) if number % 2 else confirmed(order))
        eventually(lambda: levels(inventory, hot)[1] == 0)
        assert levels(inventory, hot)[0] == 30 - (held + 1) // 2
        assert_tables_agree(rows)
