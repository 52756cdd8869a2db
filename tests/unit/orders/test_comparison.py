"""The invariants that an order violates, given the rows of each service."""

import pytest

from orders.comparison import ORDER_CHECKS, broken_by, last_change

LINES = {"tea": 2}
MONEY = {"amount": "20.00", "currency": "TRY"}


def order(status, stock, payment, **more):
    steps = {"CREATED": ["order.created"], "CONFIRMED": ["order.created", "order.confirmed"],
             "CANCELLED": ["order.created", "order.cancelled"]}[status]  # fmt: skip
    return {"status": status, "stock_status": stock, "payment_status": payment, "total_amount": "20.00",
            "currency": "TRY", "lines": LINES, "steps": steps} | more  # fmt: skip


def stock(status, lines=LINES):
    return {"status": status, "lines": {} if status in {"FAILED", "CANCELLED_BEFORE"} else lines}


def paid(status, **more):
    none = {"amount": "None", "currency": None} if status == "CANCELLED_BEFORE" else MONEY
    return {"status": status, **none} | more


def broken(order, reservation, payment, timeline="complete"):
    kinds = (order["steps"] if timeline == "complete" else timeline) if order else timeline
    held = {"inventory": reservation, "payments": payment, "notifications": {"kinds": kinds} if kinds else None}
    return set(broken_by(order, held))


SOUND = [
    (order("CONFIRMED", "COMMITTED", "CAPTURED"), stock("COMMITTED"), paid("CAPTURED")),
    (order("CONFIRMED", "COMMITTED", "PARTIALLY_REFUNDED"), stock("COMMITTED"), paid("PARTIALLY_REFUNDED")),
    (order("CONFIRMED", "COMMITTED", "REFUNDED"), stock("COMMITTED"), paid("REFUNDED")),
    (order("CANCELLED", "FAILED", "VOIDED"), stock("FAILED"), paid("VOIDED")),
    (order("CANCELLED", "RELEASED", "FAILED"), stock("RELEASED"), paid("FAILED")),
    (order("CANCELLED", "RETURNED", "REFUNDED"), stock("RETURNED"), paid("REFUNDED")),
    (order("CANCELLED", "PENDING", "PENDING"), stock("CANCELLED_BEFORE"), paid("CANCELLED_BEFORE")),
    (order("CREATED", "RESERVED", "PENDING"), stock("RESERVED"), paid("PENDING")),
]


@pytest.mark.parametrize(("order", "reservation", "payment"), SOUND)
def test_consistent_rows_violate_no_invariant(order, reservation, payment):
    assert broken(order, reservation, payment) == set()


@pytest.mark.parametrize(
    ("held", "names"),
    [
        ((order("CONFIRMED", "COMMITTED", "CAPTURED"), stock("RESERVED"), paid("CAPTURED")),
         {"confirmed_has_stock", "order_knows_stock"}),
        ((order("CONFIRMED", "COMMITTED", "CAPTURED"), stock("COMMITTED", {"tea": 1}), paid("CAPTURED")),
         {"confirmed_has_stock", "order_knows_stock"}),
        ((order("CONFIRMED", "COMMITTED", "CAPTURED"), None, None),
         {"confirmed_has_stock", "confirmed_is_paid", "order_knows_stock", "order_knows_payment"}),
        ((order("CONFIRMED", "COMMITTED", "CAPTURED"), stock("COMMITTED"), paid("CAPTURED", amount="20.01")),
         {"confirmed_is_paid", "order_knows_payment"}),
        ((order("CONFIRMED", "COMMITTED", "CAPTURED"), stock("COMMITTED"), paid("CAPTURED", currency="EUR")),
         {"confirmed_is_paid", "order_knows_payment"}),
        ((order("CONFIRMED", "RESERVED", "AUTHORIZED"), stock("RESERVED"), paid("AUTHORIZED")),
         {"confirmed_has_stock", "confirmed_is_paid"}),
        ((order("CONFIRMED", "COMMITTED", "CAPTURED"), stock("COMMITTED"), paid("PARTIALLY_REFUNDED")),
         {"order_knows_payment"}),
        ((order("CONFIRMED", "COMMITTED", "VOIDED"), stock("COMMITTED"), paid("VOIDED")), {"confirmed_is_paid"}),
        ((order("CANCELLED", "RETURNED", "PARTIALLY_REFUNDED"), stock("RETURNED"), paid("PARTIALLY_REFUNDED")),
         {"cancelled_holds_no_money"}),
        ((order("CANCELLED", "FAILED", "AUTHORIZED"), stock("FAILED"), paid("AUTHORIZED")),
         {"cancelled_holds_no_money"}),
        ((order("CANCELLED", "RESERVED", "FAILED"), stock("RESERVED"), paid("FAILED")),
         {"cancelled_holds_no_stock"}),
        ((order("CANCELLED", "PENDING", "FAILED"), None, paid("FAILED")),
         {"cancelled_holds_no_stock", "order_knows_stock"}),
        ((order("CANCELLED", "FAILED", "FAILED"), {"status": "FAILED", "lines": {"tea": 1}}, paid("FAILED")),
         {"order_knows_stock"}),
        ((order("CONFIRMED", "COMMITTED", "CAPTURED"), stock("COMMITTED"), paid("CAPTURED"), ["order.created"]),
         {"customer_notified"}),
        ((None, stock("FAILED"), None, None), {"no_orphans"}),
        ((None, None, paid("VOIDED"), None), {"no_orphans"}),
        ((None, None, None, ["order.created"]), {"no_orphans"}),
        ((None, stock("CANCELLED_BEFORE"), paid("CANCELLED_BEFORE"), None), set()),
    ],
)  # fmt: skip
def test_violated_invariants_are_named(held, names):
    assert broken(*held) == names
    assert names <= set(ORDER_CHECKS)


def test_a_pending_payment_has_no_amount_to_compare():
    cancelling = paid("PENDING", amount="0.00")
    assert broken(order("CREATED", "RESERVED", "PENDING"), stock("RESERVED"), cancelling) == set()


def test_the_age_is_that_of_the_last_change_in_spite_of_a_clock_set_back():
    assert last_change({"age": 90}, None, {"age": 70}) == 70
    assert last_change({"age": -86_400}, {"age": 7000}) == 7000
