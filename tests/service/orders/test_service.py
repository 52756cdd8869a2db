"""Orders in its container: pricing, decisions of the saga, commands, and permissions to read."""

from decimal import Decimal
from itertools import product as product_of
from unittest.mock import Mock

import pytest
import redis
import sqlalchemy
from nameko import config

from contracts.errors import (
    IdempotencyKeyReused,
    InvalidState,
    PermissionDenied,
    ServiceUnavailable,
    UpstreamTimeout,
    ValidationFailed,
)
from contracts.ids import new_id
from contracts.inventory import Shortage, StockFailed, StockReserved
from contracts.orders import OrderNotFound, OrderStatus, PriceChanged, ProductUnavailable
from contracts.payments import PaymentAuthorized, PaymentFailed
from orders import use_cases
from orders.models import UNSETTLED
from orders.saga import Saga, is_unsettled
from orders.service import OrdersService
from tests.support import database, eventually

STATUSES = (
    ("PENDING", "RESERVED", "FAILED", "COMMITTED", "RELEASED", "RETURNED"),
    ("PENDING", "AUTHORIZED", "FAILED", "CAPTURED", "VOIDED", "PARTIALLY_REFUNDED", "REFUNDED"),
)
ALICE = {"user_id": str(new_id()), "roles": ["customer"]}
BOB = {"user_id": str(new_id()), "roles": ["customer"]}
ADMIN = {"user_id": str(new_id()), "roles": ["admin"]}


def product(**changes):
    """A product as catalog returns it."""
    return {
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
    } | changes


PEN = product()
BOOK = product(sku="BOOK", price="99.99")
GONE = product(sku="GONE", is_active=False)


@pytest.fixture
def catalog():
    """A fake of catalog. RPC itself is tested elsewhere."""
    services = Mock()
    services.within.return_value = services
    services.catalog.get_products = lambda product_ids: {
        "items": [item for item in (PEN, BOOK, GONE) if item["id"] in product_ids]
    }
    return services


@pytest.fixture
def orders(run_service, caller, catalog):
    run_service(OrdersService, services=catalog)
    return caller.orders


def line(item=PEN, quantity=2, **more):
    return {"product_id": item["id"], "quantity": quantity, **more}


def reserved(order):
    return StockReserved(order_id=order["id"])


def authorized(order):
    return PaymentAuthorized(
        order_id=order["id"],
        payment_id=new_id(),
        transaction_reference="r",
        amount=Decimal(order["total_amount"]),
        currency="TRY",
    )


def refused(order):
    return PaymentFailed(order_id=order["id"], payment_id=new_id(), reason="over the limit")


def sold_out(order):
    shortage = Shortage(product_id=PEN["id"], requested=2, available=0)
    return StockFailed(order_id=order["id"], reason="not enough stock", shortages=(shortage,))


def reaches(orders, order, status):
    return eventually(lambda: (now := orders.get_order(order["id"]))["status"] == status and now)


def test_an_order_is_priced_stored_and_announced(orders, bus):
    order = orders.create_order([line(), line(BOOK, 1), line(quantity=1)], actor=ALICE)

    assert order["status"] == "CREATED"
    assert order["total_amount"] == "137.49"
    assert [(item["product_sku"], item["quantity"], item["line_total"]) for item in order["items"]] == [
        ("PEN", 3, "37.50"),
        ("BOOK", 1, "99.99"),
    ]
    (created,) = bus.wait_for("order.created", order["id"])
    assert created.total_amount == Decimal("137.49")
    assert orders.get_order(order["id"], actor=ALICE) == order


@pytest.mark.parametrize(
    ("items", "total", "error", "field"),
    [
        ([line(product())], None, ProductUnavailable, "items[0].product_id"),
        ([line(), line(GONE)], None, ProductUnavailable, "items[1].product_id"),
        ([line(product_sku="INK")], None, ValidationFailed, "items[0].product_sku"),
        ([line(price_snapshot="12.49")], None, PriceChanged, "items[0].price_snapshot"),
        ([line()], "24.99", PriceChanged, "total_amount"),
        ([line(quantity=0)], None, ValidationFailed, "items[0].quantity"),
        ([line(quantity=6000), line(quantity=6000)], None, ValidationFailed, "items"),
        ([], None, ValidationFailed, "items"),
    ],
)
def test_the_refusal_of_an_invalid_order_names_the_field(orders, items, total, error, field):
    with pytest.raises(error) as refusal:
        orders.create_order(items, total, actor=ALICE)
    assert refusal.value.errors[0].field == field
    assert orders.list_orders()["items"] == []


def test_both_replies_confirm_the_order_in_either_sequence(orders, bus):
    for first, second in ((reserved, authorized), (authorized, reserved)):
        order = orders.create_order([line()], actor=ALICE)
        bus.publish(first(order))
        bus.publish(second(order))
        bus.wait_for("order.confirmed", order["id"])
        now = reaches(orders, order, "CONFIRMED")
        assert (now["stock_status"], now["payment_status"]) == ("RESERVED", "AUTHORIZED")


def test_concurrent_replies_confirm_every_order(orders, bus):
    made = [orders.create_order([line()], actor=ALICE) for _ in range(30)]
    for order in made:  # two queues, two handlers, one row: each must see the change of the other
        bus.publish(reserved(order))
        bus.publish(authorized(order))
    for order in made:
        reaches(orders, order, "CONFIRMED")
    assert len(bus.wait_for("order.confirmed", count=30)) == 30


@pytest.mark.parametrize(("reply", "reason"), [(sold_out, "OUT_OF_STOCK"), (refused, "PAYMENT_FAILED")])
def test_one_failure_reply_cancels_the_order_immediately(orders, bus, reply, reason):
    order = orders.create_order([line()], actor=ALICE)
    bus.publish(reply(order))
    (cancelled,) = bus.wait_for("order.cancelled", order["id"])
    assert cancelled.reason == reason
    assert reaches(orders, order, "CANCELLED")["cancel_reason"] == reason


def test_a_duplicate_changes_nothing(orders, bus):
    order = orders.create_order([line()], actor=ALICE)
    message_id = bus.publish(reserved(order))
    for _ in range(3):
        bus.publish(reserved(order), message_id=message_id)
    bus.publish(authorized(order))
    reaches(orders, order, "CONFIRMED")
    events = [entry["event"] for entry in orders.get_timeline(order["id"])["items"]]
    assert sorted(events) == ["inventory.stock_reserved", "order.confirmed", "order.created", "payment.authorized"]
    assert len(bus.wait_for("order.confirmed", order["id"])) == 1


def test_an_order_without_replies_is_cancelled_at_its_deadline(orders, bus, monkeypatch):
    monkeypatch.setitem(config.data, "ORDER_DEADLINE_SECONDS", 0.2)
    order = orders.create_order([line()], actor=ALICE)
    (cancelled,) = bus.wait_for("order.cancelled", order["id"])
    assert cancelled.reason == "TIMEOUT"


def overdue():
    """Let the deadlines of all orders pass."""
    with database("orders").begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE orders SET deadline_at = now() - interval '1 minute'"))


def test_an_order_that_cannot_be_cancelled_delays_no_other(orders, bus, monkeypatch):
    bad, *others = [orders.create_order([line()], actor=ALICE)["id"] for _ in range(3)]
    status_event = use_cases._status_event

    def fail(order, after):
        if str(order.id) == bad:
            raise RuntimeError("intended failure")
        return status_event(order, after)

    with monkeypatch.context() as broken:
        broken.setattr(use_cases, "_status_event", fail)
        overdue()
        for order in others:
            (cancelled,) = bus.wait_for("order.cancelled", order)
            assert cancelled.reason == "TIMEOUT"
        later = orders.create_order([line()], actor=ALICE)["id"]
        overdue()
        bus.wait_for("order.cancelled", later)
        assert orders.get_order(bad)["status"] == "CREATED"
    bus.wait_for("order.cancelled", bad)  # it is tried again


def test_an_overdue_order_that_is_locked_delays_no_other(orders, bus):
    locked, other = [orders.create_order([line()], actor=ALICE)["id"] for _ in range(2)]
    overdue()
    with database("orders").begin() as connection:
        connection.execute(sqlalchemy.text("SELECT FROM orders WHERE id = :id FOR UPDATE"), {"id": locked})
        bus.wait_for("order.cancelled", other)
    bus.wait_for("order.cancelled", locked)


def test_a_clock_set_back_delays_no_deadline(orders, bus, monkeypatch):
    monkeypatch.setitem(config.data, "ORDER_DEADLINE_SECONDS", 1)
    placed = orders.create_order([line()], actor=ALICE)
    with database("orders").begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE orders SET deadline_at = deadline_at + interval '1 day'"))
    bus.wait_for("order.cancelled", placed["id"])
    assert orders.get_order(placed["id"])["cancel_reason"] == "TIMEOUT"


def test_a_cancelled_order_is_read_as_cancelled_immediately(orders):
    order = orders.create_order([line()], actor=ALICE)
    orders.get_order(order["id"])  # now it is in the cache
    orders.cancel_order(order["id"], actor=ALICE)
    assert orders.get_order(order["id"])["status"] == "CANCELLED"
    with pytest.raises(InvalidState):
        orders.cancel_order(order["id"], actor=ALICE)


def test_an_order_without_replies_is_listed_as_stuck(orders, bus, monkeypatch):
    monkeypatch.setitem(config.data, "ORDER_DEADLINE_SECONDS", 0)
    settled, stuck = [orders.create_order([line()], actor=ALICE) for _ in range(2)]
    for order in (settled, stuck):
        reaches(orders, order, "CANCELLED")  # by its deadline, which passes immediately
    bus.publish(reserved(stuck))  # reserved for a cancelled order, and never released
    eventually(lambda: orders.get_order(stuck["id"])["stock_status"] == "RESERVED")
    (listed,) = orders.list_stuck(actor=ADMIN)["items"]
    assert (listed["id"], listed["status"], listed["stock_status"]) == (stuck["id"], "CANCELLED", "RESERVED")
    assert listed["awaits"] == ["inventory has not released the stock (order.cancelled)"]
    assert listed["since"] == orders.get_order(stuck["id"])["updated_at"]
    for ask in (orders.list_stuck, orders.list_sagas):
        with pytest.raises(PermissionDenied):
            ask(actor=ALICE)


def test_an_order_in_progress_is_listed_before_it_is_stuck(orders, monkeypatch):
    monkeypatch.setitem(config.data, "ORDER_DEADLINE_SECONDS", 60)
    made = [orders.create_order([line()], actor=ALICE)["id"] for _ in range(3)]
    page = orders.list_sagas(limit=2, actor=ADMIN)
    rest = orders.list_sagas(limit=2, cursor=page["next_cursor"], actor=ADMIN)
    assert [item["id"] for item in page["items"] + rest["items"]] == made[::-1]
    assert len(page["items"][0]["awaits"]) == 2
    assert orders.list_sagas(stuck=True, actor=ADMIN)["items"] == []
    orders.cancel_order(made[0], actor=ALICE)
    assert [item["id"] for item in orders.list_sagas(actor=ADMIN)["items"]] == [made[2], made[1]]


def test_the_sql_of_stuck_orders_agrees_with_the_saga(servers):
    rows = list(product_of(OrderStatus, *STATUSES))
    one = "(VALUES (:status, :stock, :payment)) AS one (status, stock_status, payment_status)"
    query = sqlalchemy.text(f"SELECT {UNSETTLED.text} FROM {one}")
    with database("orders").connect() as connection:
        for status, stock, payment in rows:
            stuck = connection.scalar(query, {"status": status, "stock": stock, "payment": payment})
            assert stuck == is_unsettled(Saga(status, stock, payment)), (status, stock, payment)


def test_shipping_and_delivering(orders, bus):
    order = orders.create_order([line()], actor=ALICE)
    with pytest.raises(InvalidState):
        orders.ship_order(order["id"], actor=ADMIN)
    bus.publish(reserved(order))
    bus.publish(authorized(order))
    reaches(orders, order, "CONFIRMED")
    assert orders.ship_order(order["id"], actor=ADMIN)["status"] == "SHIPPED"
    with pytest.raises(InvalidState):
        orders.cancel_order(order["id"], actor=ALICE)
    assert orders.deliver_order(order["id"], actor=ADMIN)["status"] == "DELIVERED"
    assert bus.wait_for("order.shipped", order["id"])
    assert bus.wait_for("order.delivered", order["id"])


def test_customers_see_only_their_own_orders(orders):
    order = orders.create_order([line()], actor=ALICE)
    for ask in (orders.get_order, orders.get_timeline, orders.cancel_order):
        with pytest.raises(OrderNotFound):
            ask(order["id"], actor=BOB)
    for ask in (orders.ship_order, orders.deliver_order):
        with pytest.raises(PermissionDenied):
            ask(str(new_id()), actor=ALICE)
    with pytest.raises(PermissionDenied):
        orders.list_orders(user_id=ALICE["user_id"], actor=BOB)
    assert orders.list_orders(actor=BOB)["items"] == []
    assert [item["id"] for item in orders.list_orders(actor=ADMIN)["items"]] == [order["id"]]


def test_pages_do_not_shift_while_orders_are_added(orders):
    made = [orders.create_order([line()], actor=ALICE)["id"] for _ in range(5)]
    page = orders.list_orders(limit=2, actor=ALICE)
    orders.create_order([line()], actor=ALICE)
    seen = [item["id"] for item in page["items"]]
    while page["next_cursor"]:
        page = orders.list_orders(limit=2, cursor=page["next_cursor"], actor=ALICE)
        seen += [item["id"] for item in page["items"]]
    assert seen == made[::-1]


def test_an_idempotency_key_places_one_order(orders):
    first = orders.create_order([line()], actor=ALICE, idempotency_key="k1")
    assert orders.create_order([line()], actor=ALICE, idempotency_key="k1") == first
    with pytest.raises(IdempotencyKeyReused):
        orders.create_order([line(quantity=3)], actor=ALICE, idempotency_key="k1")
    assert orders.create_order([line()], actor=BOB, idempotency_key="k1")["id"] != first["id"]
    for _ in range(2):
        with pytest.raises(PriceChanged):
            orders.create_order([line(price_snapshot="1.00")], actor=ALICE, idempotency_key="k2")


def test_without_the_catalog_no_order_is_placed(run_service, caller):
    run_service(OrdersService)
    # Immediately if the queue of catalog is gone; at the deadline if catalog has just stopped.
    with pytest.raises((ServiceUnavailable, UpstreamTimeout)):
        caller.orders.create_order([line()], actor=ALICE)
    assert caller.orders.list_orders()["items"] == []


@pytest.mark.parametrize("failure", [ServiceUnavailable, UpstreamTimeout])
def test_without_catalog_repeated_requests_still_get_their_result(orders, catalog, failure):
    first = orders.create_order([line()], actor=ALICE, idempotency_key="k1")
    catalog.catalog.get_products = Mock(side_effect=failure)
    redis.Redis.from_url(config["REDIS_URL"]).flushall()  # its copies of the products may be outdated now
    assert orders.create_order([line()], actor=ALICE, idempotency_key="k1") == first
    with pytest.raises(IdempotencyKeyReused):
        orders.create_order([line(quantity=3)], actor=ALICE, idempotency_key="k1")
    for actor, key in ((ALICE, "k2"), (ALICE, None), (BOB, "k1")):
        with pytest.raises(ServiceUnavailable):
            orders.create_order([line(BOOK)], actor=actor, idempotency_key=key)
