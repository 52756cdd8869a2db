"""Thresholds of low stock, by every way in which stock changes; and what the ledger says about each change."""

import pytest
import sqlalchemy
from sqlalchemy import text

from contracts.errors import PermissionDenied, PreconditionFailed, ValidationFailed
from contracts.etags import etag
from contracts.ids import new_id
from contracts.inventory import StockNotFound
from inventory import audit
from inventory.service import InventoryService
from tests.service.inventory.test_inventory import ADMIN, CUSTOMER, cancelled, confirmed, created, replica
from tests.support import database, eventually


@pytest.fixture
def inventory(shared_services, caller):
    shared_services(InventoryService)
    return caller.inventory


@pytest.fixture
def product(inventory):
    """A product with ten units, which are low below five."""
    product_id = replica("SKU-1")
    inventory.set_stock(product_id, "SKU-1", 10)
    inventory.set_threshold(product_id, 5)
    return product_id


def announced(bus, product_id):
    return [
        (event.product_sku, event.available, event.threshold)
        for event in bus.events()
        if event.event_type == "inventory.stock_low" and str(event.product_id) == product_id
    ]


def state(inventory, product_id):
    stock = inventory.get_stock(product_id)
    return stock["available"], stock["low_stock"], stock["is_low"]


def reserve(bus, product_id, units):
    """Reserve units for a new order, and return it."""
    bus.publish(order := created((product_id, units)))
    bus.wait_for("inventory.stock_reserved", order.order_id)
    return order


def test_a_reservation_below_the_threshold_is_announced_once(inventory, product, bus):
    reserve(bus, product, 5)
    assert state(inventory, product) == (5, 5, False)
    order = reserve(bus, product, 2)
    bus.wait_for("inventory.stock_low")
    reserve(bus, product, 1)
    assert state(inventory, product) == (2, 5, True)
    bus.publish(confirmed(order))
    bus.wait_for("inventory.stock_committed", order.order_id)
    assert announced(bus, product) == [("SKU-1", 3, 5)]


def test_it_is_announced_again_only_after_it_has_risen(inventory, product, bus):
    inventory.adjust_stock(product, -6, "torn")
    inventory.adjust_stock(product, -1, "torn")
    inventory.change_stock_level(product, 5)
    assert state(inventory, product) == (5, 5, False)
    inventory.set_stock(product, "SKU-1", 1)
    eventually(lambda: announced(bus, product) == [("SKU-1", 4, 5), ("SKU-1", 1, 5)])


def test_a_cancelled_order_raises_it(inventory, product, bus):
    order = reserve(bus, product, 8)
    bus.publish(cancelled(order))
    bus.wait_for("inventory.stock_released", order.order_id)
    assert state(inventory, product) == (10, 5, False)
    reserve(bus, product, 7)
    eventually(lambda: announced(bus, product) == [("SKU-1", 2, 5), ("SKU-1", 3, 5)])


def test_a_change_of_the_threshold_counts(inventory, product, bus):
    assert inventory.set_threshold(product, 11)["is_low"]
    assert inventory.set_threshold(product, 12)["is_low"]  # low already
    assert inventory.set_threshold(product, 10) == inventory.get_stock(product)
    assert state(inventory, product) == (10, 10, False)
    inventory.set_threshold(product, 20)
    cleared = inventory.set_threshold(product, None)
    assert (cleared["low_stock"], cleared["is_low"]) == (None, False)
    inventory.adjust_stock(product, -10, "sold out")
    inventory.set_threshold(product, 1)
    eventually(lambda: announced(bus, product) == [("SKU-1", 10, 11), ("SKU-1", 10, 20), ("SKU-1", 0, 1)])
    assert len(inventory.list_movements(product)["items"]) == 2, "a threshold is no change of stock"


def test_an_order_below_two_thresholds_announces_both(inventory, product, bus):
    other = replica("SKU-2")
    inventory.set_stock(other, "SKU-2", 3)
    inventory.set_threshold(other, 3)
    bus.publish(created((product, 6), (other, 1)))
    bus.wait_for("inventory.stock_low", count=2)
    assert announced(bus, product) + announced(bus, other) == [("SKU-1", 4, 5), ("SKU-2", 2, 3)]
    messages = [each for each in bus.messages if each.properties.get("type") == "inventory.stock_low"]
    caused = next(each for each in bus.messages if each.properties.get("type") == "inventory.stock_reserved")
    assert {each.headers["causation-id"] for each in messages} == {caused.headers["causation-id"]}


def test_only_administrators_set_a_threshold_of_what_has_stock(inventory, product):
    with pytest.raises(PermissionDenied):
        inventory.set_threshold(str(new_id()), 1, actor=CUSTOMER)
    with pytest.raises(StockNotFound):
        inventory.set_threshold(str(new_id()), 1, actor=ADMIN)
    for wrong in (-1, 10**9 + 1, "5", 1.5, True):
        with pytest.raises(ValidationFailed, match="low_stock"):
            inventory.set_threshold(product, wrong, actor=ADMIN)


def test_a_threshold_is_changed_only_from_the_version_that_was_read(inventory, product):
    before = etag(inventory.get_stock(product))
    inventory.set_threshold(product, 4, if_match=[before])
    with pytest.raises(PreconditionFailed):
        inventory.set_threshold(product, 3, if_match=[before])


def test_the_ledger_names_the_cause_of_each_change(inventory, bus):
    product = replica("SKU-1")
    inventory.set_stock(product, "SKU-1", 10, actor=ADMIN)
    inventory.adjust_stock(product, -1, "torn", actor=ADMIN)
    inventory.change_stock_level(product, 9)
    message_id = bus.publish(order := created((product, 2)), application_headers={"x-request-id": "r-1"})
    bus.wait_for("inventory.stock_reserved", order.order_id)
    bus.publish(cancelled(order))
    bus.wait_for("inventory.stock_released", order.order_id)
    found = inventory.list_movements(product)["items"][::-1]
    assert [(each["kind"], each["reason"], each["actor_id"]) for each in found] == [
        ("FIRST", None, ADMIN["user_id"]),
        ("ADJUSTED", "torn", ADMIN["user_id"]),
        ("SET", None, None),
        ("RESERVED", None, None),
        ("RELEASED", "USER", None),
    ]
    assert all(each["request_id"] for each in found)
    assert [each["event_id"] is None for each in found] == [True, True, True, False, False]
    assert (found[3]["event_id"], found[3]["request_id"]) == (message_id, "r-1")


def test_a_reservation_costs_no_further_statement(inventory, product, bus):
    """The threshold is read with the lock of the stock, and whether it is low is written with the new balance."""
    statements = []

    def note(_connection, _cursor, statement, _parameters, _context, _many):
        statements.append(statement.split("FROM unnest")[0])

    def used_by(units):
        statements.clear()
        order = reserve(bus, product, units)
        eventually(lambda: any("inbox" in each for each in statements))
        return order, sorted(each for each in statements if any(name in each for name in ("stock", "movements")))

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", note)
    try:
        _, above = used_by(1)
        _, below = used_by(6)
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", note)
    assert above == below
    assert len(above) == 3, above


def test_the_audit_finds_stock_whose_state_is_wrong(inventory, product):
    def low_differs():
        with database("inventory").connect() as connection:
            return connection.scalar(text(f"SELECT count(*) FROM ({audit.LOW_DIFFERS}) AS broken"))

    assert low_differs() == 0
    with database("inventory").begin() as connection:
        connection.execute(text("UPDATE stock SET low_stock = 11"))
    assert low_differs() == 1
