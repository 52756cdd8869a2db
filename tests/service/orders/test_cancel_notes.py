"""What somebody writes who cancels an order: the timeline shows it, no event has it, and it goes with the account."""

import json

import pytest

from contracts.errors import IdempotencyKeyReused, ValidationFailed
from contracts.orders import OrderCancelled
from contracts.users import UserDeleted
from orders.service import OrdersService
from tests.service.orders.test_service import (
    ADMIN,
    ALICE,
    catalog,  # noqa: F401 - a fixture
    line,
)
from tests.support import eventually

REASON = "Ayşe no longer needs it"


@pytest.fixture
def orders(run_service, caller, catalog):  # noqa: F811
    run_service(OrdersService, services=catalog)
    return caller.orders


@pytest.fixture
def order(orders):
    return orders.create_order([line()], actor=ALICE)


def cancellation(orders, order):
    """The data of the cancellation in the timeline."""
    entries = orders.get_timeline(order["id"], actor=ALICE)["items"]
    [data] = [entry["data"] for entry in entries if entry["event"] == OrderCancelled.event_type]
    return data


@pytest.mark.parametrize(("actor", "by"), [(ALICE, "USER"), (ADMIN, "ADMIN")])
def test_the_timeline_shows_the_note_and_no_event_has_it(orders, order, bus, actor, by):
    cancelled = orders.cancel_order(order["id"], reason=REASON, actor=actor)
    assert cancelled["cancel_reason"] == by
    expected = {"order_id": order["id"], "user_id": ALICE["user_id"], "reason": by, "note": REASON}
    assert cancellation(orders, order) == expected
    asked = {"orders": [{"order_id": order["id"], "known": 1}]}
    assert [item["data"] for item in orders.get_timelines(**asked, actor=ADMIN)["items"]] == [expected]
    [exported] = orders.export_orders(ALICE["user_id"], actor=ALICE)["items"]
    assert exported["timeline"][-1]["data"] == expected
    bus.wait_for("order.cancelled", order["id"])
    bodies = [json.loads(message.body) for message in bus.messages]
    assert REASON not in json.dumps(bodies, ensure_ascii=False)


@pytest.mark.parametrize("stated", [{}, {"reason": None}], ids=["absent", "null"])
def test_it_may_be_left_out(orders, order, stated):
    orders.cancel_order(order["id"], actor=ALICE, **stated)
    assert "note" not in cancellation(orders, order)


@pytest.mark.parametrize("reason", ["", " ", "two\nlines", "x" * 201, 7])
def test_it_is_a_line(orders, order, reason):
    with pytest.raises(ValidationFailed, match="reason"):
        orders.cancel_order(order["id"], reason=reason, actor=ALICE)
    assert orders.get_order(order["id"])["status"] == "CREATED"


def test_the_idempotency_key_is_for_the_note_too(orders, order):
    first = orders.cancel_order(order["id"], reason=REASON, actor=ALICE, idempotency_key="k")
    assert orders.cancel_order(order["id"], reason=REASON, actor=ALICE, idempotency_key="k") == first
    for other in ({}, {"reason": "another"}):
        with pytest.raises(IdempotencyKeyReused):
            orders.cancel_order(order["id"], actor=ALICE, idempotency_key="k", **other)


def test_it_is_removed_with_the_account(orders, order, bus):
    orders.cancel_order(order["id"], reason=REASON, actor=ADMIN)
    bus.publish(UserDeleted(user_id=ALICE["user_id"]))
    eventually(lambda: "note" not in cancellation(orders, order))
    assert cancellation(orders, order)["reason"] == "ADMIN"
