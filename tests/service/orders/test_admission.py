"""Admission with too many undecided orders: what is refused, what still works, and what makes room."""

from datetime import timedelta
from unittest.mock import Mock

import nameko
import pytest
import sqlalchemy
from sqlalchemy.orm import Session

from contracts.errors import IdempotencyKeyReused, Overloaded
from contracts.ids import new_id
from contracts.inventory import StockFailed
from orders import queries
from orders.admission import Waiting
from orders.service import OrdersService
from tests.support import database, eventually

LIMIT = 9  # an eighth of it is one
ALICE = {"user_id": str(new_id()), "roles": ["customer"]}
PEN = {
    "id": str(new_id()),
    "sku": "PEN",
    "name": "Pen",
    "description": "",
    "price": "12.50",
    "currency": "TRY",
    "is_active": True,
    "version": 1,
    "created_at": "2026-01-01T00:00:00.000000Z",
    "updated_at": "2026-01-01T00:00:00.000000Z",
}
ONE_PEN = [{"product_id": PEN["id"], "quantity": 1}]


@pytest.fixture
def catalog():
    services = Mock()
    services.catalog.get_products.return_value = {"items": [PEN]}
    return services


@pytest.fixture
def orders(run_service, caller, catalog):
    with nameko.config.patch({"MAX_UNDECIDED_ORDERS": LIMIT}):
        run_service(OrdersService, services=catalog)
        yield caller.orders


def fill(orders):
    """Place orders up to the limit, each with its own idempotency key: k0, k1, ..."""
    return [orders.create_order(ONE_PEN, actor=ALICE, idempotency_key=f"k{number}") for number in range(LIMIT)]


def stored():
    with database("orders").connect() as connection:
        counts = "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM timeline),"
        return tuple(connection.execute(sqlalchemy.text(counts + " (SELECT count(*) FROM idempotency_keys)")).one())


def test_an_order_over_the_limit_is_refused_and_stores_nothing(orders, catalog):
    fill(orders)
    before, asked = stored(), catalog.catalog.get_products.call_count
    with pytest.raises(Overloaded, match="Nothing was done") as refusal:
        orders.create_order(ONE_PEN, actor=ALICE, idempotency_key="new")
    assert (refusal.value.status, refusal.value.code, refusal.value.retry_after) == (503, "SERVICE_UNAVAILABLE", 1)
    with pytest.raises(Overloaded):
        orders.create_order(ONE_PEN, actor=ALICE)
    assert stored() == before
    assert catalog.catalog.get_products.call_count == asked  # the refusal caused no call to catalog


def test_repeated_requests_of_earlier_orders_still_get_their_result(orders):
    first = fill(orders)[0]
    assert orders.create_order(ONE_PEN, actor=ALICE, idempotency_key="k0") == first
    with pytest.raises(IdempotencyKeyReused):
        orders.create_order([{"product_id": PEN["id"], "quantity": 2}], actor=ALICE, idempotency_key="k0")
    stranger = {"user_id": str(new_id()), "roles": ["customer"]}
    with pytest.raises(Overloaded):
        orders.create_order(ONE_PEN, actor=stranger, idempotency_key="k0")


def test_a_decision_makes_room_and_a_refused_key_can_be_used_again(orders, bus):
    undecided = fill(orders)
    with pytest.raises(Overloaded):
        orders.create_order(ONE_PEN, actor=ALICE, idempotency_key="new")
    bus.publish(StockFailed(order_id=undecided[0]["id"], reason="OUT_OF_STOCK", shortages=()))
    eventually(lambda: orders.get_order(undecided[0]["id"])["status"] == "CANCELLED")

    def try_again():
        try:
            return orders.create_order(ONE_PEN, actor=ALICE, idempotency_key="new")
        except Overloaded:
            return None

    assert eventually(try_again, timeout=2)["status"] == "CREATED"
    with pytest.raises(Overloaded):
        orders.create_order(ONE_PEN, actor=ALICE)


def test_orders_can_still_be_cancelled_and_read(orders):
    undecided = fill(orders)
    assert orders.get_order(undecided[0]["id"], actor=ALICE)["status"] == "CREATED"
    assert orders.cancel_order(undecided[0]["id"], actor=ALICE)["status"] == "CANCELLED"


def test_late_orders_are_counted_separately(orders):
    fill(orders)
    deadline, late_after = timedelta(seconds=30), timedelta(seconds=7.5)
    with Session(database("orders")) as session:
        assert queries.count_waiting(session, deadline, late_after) == Waiting(undecided=LIMIT, late=0)
        session.execute(sqlalchemy.text("UPDATE orders SET deadline_at = clock_timestamp() + interval '22 s'"))
        assert queries.count_waiting(session, deadline, late_after) == Waiting(undecided=LIMIT, late=LIMIT)
        session.execute(sqlalchemy.text("UPDATE orders SET deadline_at = clock_timestamp() + interval '23 s'"))
        assert queries.count_waiting(session, deadline, late_after) == Waiting(undecided=LIMIT, late=0)
