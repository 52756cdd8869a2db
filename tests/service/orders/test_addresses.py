"""The shipping address of an order, its carrier and tracking number, and refunds that an administrator has made."""

import json
from uuid import UUID

import pytest
import sqlalchemy

from contracts.errors import IdempotencyKeyReused, ValidationFailed
from contracts.ids import new_id
from contracts.payments import PaymentCaptured, PaymentPartiallyRefunded, PaymentRefunded
from orders import personal_data
from orders.service import OrdersService
from tests.service.orders.test_service import (
    ADMIN,
    ALICE,
    authorized,
    catalog,  # noqa: F401 - a fixture
    line,
    reaches,
    reserved,
)
from tests.support import database, eventually

ADDRESS = {
    "name": "Ayşe Demir",
    "line1": "Bağdat Caddesi 123, D: 4",
    "line2": None,
    "city": "İstanbul",
    "postal_code": "34710",
    "country": "TR",
}


@pytest.fixture
def orders(run_service, caller, catalog):  # noqa: F811
    run_service(OrdersService, services=catalog)
    return caller.orders


@pytest.fixture
def shippable(orders, bus):
    """An order that can be shipped."""
    order = orders.create_order([line()], actor=ALICE)
    bus.publish(reserved(order))
    bus.publish(authorized(order))
    reaches(orders, order, "CONFIRMED")
    return order


class TestAnAddress:
    def test_is_a_part_of_the_order_and_of_no_event(self, orders, bus):
        order = orders.create_order([line()], actor=ALICE, shipping_address=ADDRESS)
        assert order["shipping_address"] == ADDRESS
        assert orders.get_order(order["id"], actor=ALICE)["shipping_address"] == ADDRESS
        assert orders.list_orders(actor=ALICE)["items"] == [order]
        orders.cancel_order(order["id"], actor=ALICE)
        bus.wait_for("order.cancelled", order["id"])
        published = " ".join(json.dumps(json.loads(message.body), ensure_ascii=False) for message in bus.messages)
        timeline = json.dumps(orders.get_timeline(order["id"], actor=ALICE), ensure_ascii=False)
        assert "Bağdat" not in published + timeline

    def test_may_be_left_out(self, orders):
        order = orders.create_order([line()], actor=ALICE)
        assert (order["shipping_address"], order["carrier"], order["tracking_number"]) == (None, None, None)
        assert orders.get_order(order["id"], actor=ALICE) == order

    def test_null_is_the_same_as_absent_for_a_key(self, orders):
        without = orders.create_order([line()], actor=ALICE, idempotency_key="none")
        assert orders.create_order([line()], actor=ALICE, idempotency_key="none", shipping_address=None) == without
        first = orders.create_order([line()], actor=ALICE, idempotency_key="one", shipping_address=ADDRESS)
        short = {name: value for name, value in ADDRESS.items() if value is not None}
        assert orders.create_order([line()], actor=ALICE, idempotency_key="one", shipping_address=short) == first
        for other in (None, ADDRESS | {"city": "Ankara"}):
            with pytest.raises(IdempotencyKeyReused):
                orders.create_order([line()], actor=ALICE, idempotency_key="one", shipping_address=other)
        with pytest.raises(IdempotencyKeyReused):
            orders.create_order([line()], actor=ALICE, idempotency_key="none", shipping_address=ADDRESS)

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"name": ""}, "name"),
            ({"name": "two\nlines"}, "name"),
            ({"line1": None}, "line1"),
            ({"line1": "x" * 201}, "line1"),
            ({"line2": " "}, "line2"),
            ({"city": "x" * 101}, "city"),
            ({"postal_code": "1" * 21}, "postal_code"),
            ({"postal_code": 34710}, "postal_code"),
            ({"country": "tr"}, "country"),
            ({"country": "XX"}, "country"),
            ({"country": "TUR"}, "country"),
            ({"country": "TR\n"}, "country"),
            ({"phone": "1"}, "phone"),
        ],
    )
    def test_wrong_fields_are_named(self, orders, change, field):
        with pytest.raises(ValidationFailed) as refusal:
            orders.create_order([line()], actor=ALICE, shipping_address=ADDRESS | change)
        assert [error.field for error in refusal.value.errors] == [f"shipping_address.{field}"]
        assert orders.list_orders()["items"] == []

    def test_is_removed_with_the_account(self, orders):
        kept = orders.create_order([line()], actor={"user_id": str(new_id())}, shipping_address=ADDRESS)
        made = [
            orders.create_order([line()], actor=ALICE, shipping_address=address, idempotency_key=key)
            for address, key in ((ADDRESS, "one"), (ADDRESS, None), (None, None))
        ]
        with sqlalchemy.orm.Session(database("orders")) as session, session.begin():
            changed = personal_data.remove(session, [UUID(ALICE["user_id"])], 10)
        assert {str(order_id): version for order_id, version in changed.items()} == {
            order["id"]: order["version"] + 1 for order in made[:2]
        }
        with database("orders").connect() as connection:
            found = connection.execute(sqlalchemy.text("SELECT id FROM orders WHERE shipping_address IS NOT NULL"))
            assert [str(order_id) for (order_id,) in found] == [kept["id"]]
            stored = sqlalchemy.text("SELECT count(*) FROM idempotency_keys WHERE CAST(answer AS text) LIKE '%Ba%dat%'")
            assert connection.scalar(stored) == 0
        with sqlalchemy.orm.Session(database("orders")) as session, session.begin():
            assert personal_data.remove(session, [UUID(ALICE["user_id"])], 10) == {}


class TestShipping:
    def test_with_a_carrier_and_a_tracking_number(self, orders, shippable, bus):
        stated = {"carrier": "PTT Kargo", "tracking_number": "KP0129384756"}
        shipped = orders.ship_order(shippable["id"], actor=ADMIN, **stated)
        assert stated.items() <= shipped.items()
        assert stated.items() <= orders.get_order(shippable["id"], actor=ALICE).items()
        [event] = bus.wait_for("order.shipped", shippable["id"])
        assert (event.carrier, event.tracking_number) == tuple(stated.values())
        entry = orders.get_timeline(shippable["id"], actor=ALICE)["items"][-1]
        assert entry["data"] == {"order_id": shippable["id"], "user_id": ALICE["user_id"]} | stated
        assert stated.items() <= orders.deliver_order(shippable["id"], actor=ADMIN).items()

    def test_without_them_the_event_is_as_before(self, orders, shippable, bus):
        shipped = orders.ship_order(shippable["id"], actor=ADMIN)
        assert (shipped["carrier"], shipped["tracking_number"]) == (None, None)
        bus.wait_for("order.shipped", shippable["id"])
        [message] = [each for each in bus.messages if each.properties.get("type") == "order.shipped"]
        assert json.loads(message.body) == {"order_id": shippable["id"], "user_id": ALICE["user_id"]}

    @pytest.mark.parametrize(
        "wrong", [{"carrier": ""}, {"carrier": "x" * 101}, {"tracking_number": "a\nb"}, {"tracking_number": 7}]
    )
    def test_wrong_fields_are_named(self, orders, shippable, wrong):
        with pytest.raises(ValidationFailed, match=next(iter(wrong))):
            orders.ship_order(shippable["id"], actor=ADMIN, **wrong)
        assert orders.get_order(shippable["id"], actor=ALICE)["status"] == "CONFIRMED"


def test_refunds_are_known_to_the_order_in_any_sequence(orders, shippable, bus):
    orders.ship_order(shippable["id"], actor=ADMIN)
    about = {"order_id": shippable["id"], "payment_id": new_id(), "currency": "TRY"}

    def has(payment_status):
        order = orders.get_order(shippable["id"], actor=ALICE)
        return (order["status"], order["payment_status"]) == ("SHIPPED", payment_status)

    for amount, remaining in (("5.00", "4.00"), ("1.00", "9.00")):
        bus.publish(PaymentPartiallyRefunded(amount=amount, remaining=remaining, **about))
    eventually(lambda: has("PARTIALLY_REFUNDED"))
    bus.publish(PaymentCaptured(order_id=shippable["id"], payment_id=new_id()))
    bus.publish(PaymentRefunded(amount="4.00", **about))
    eventually(lambda: has("REFUNDED"))
    bus.publish(PaymentPartiallyRefunded(amount="4.00", remaining="0.00", **about))

    def events():
        return [entry["event"] for entry in orders.get_timeline(shippable["id"], actor=ALICE)["items"]]

    eventually(lambda: events().count("payment.partially_refunded") == 3)
    assert has("REFUNDED")
    assert events().count("payment.captured") == 1
    entries = orders.get_timeline(shippable["id"], actor=ALICE)["items"]
    first = next(entry for entry in entries if entry["event"] == "payment.partially_refunded")
    assert (first["data"]["amount"], first["data"]["remaining"]) in {("5.00", "4.00"), ("1.00", "9.00")}
