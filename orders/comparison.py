"""Which invariants an order breaks: a pure function of what the services store about it."""

from collections.abc import Iterator, Mapping
from typing import Any

ORDER_CHECKS = (
    "confirmed_has_stock",
    "confirmed_is_paid",
    "cancelled_holds_no_stock",
    "cancelled_holds_no_money",
    "order_knows_stock",
    "order_knows_payment",
    "customer_notified",
    "no_orphans",
)

Row = Mapping[str, Any]
NOTHING: Row = {}
TOMBSTONE = "CANCELLED_BEFORE"
NO_STOCK_HELD = {"FAILED", "RELEASED", "RETURNED", TOMBSTONE}
NO_MONEY_HELD = {"FAILED", "VOIDED", "REFUNDED", TOMBSTONE}
# An administrator may have refunded a part or all. Whether the refunds add up is a check of payments itself.
PAID = {"CAPTURED", "PARTIALLY_REFUNDED", "REFUNDED"}


def broken_by(order: Row | None, held: Mapping[str, Row | None]) -> Iterator[str]:
    """Yield the names of the invariants that one order breaks.

    `held` has the row of each participant about the order, by the participant's name. None: there is no row.
    """
    reservation, payment, notifications = (held[name] or NOTHING for name in ("inventory", "payments", "notifications"))
    if order is None:
        if notifications or any(row.get("status", TOMBSTONE) != TOMBSTONE for row in (reservation, payment)):
            yield "no_orphans"
        return
    yield from _broken_outcome(order, reservation, payment)
    if not _matches(order["stock_status"], reservation) or _lines(reservation) not in (None, order["lines"]):
        yield "order_knows_stock"
    if not _matches(order["payment_status"], payment) or (_announced(payment) and not _same_money(order, payment)):
        yield "order_knows_payment"
    if set(notifications.get("kinds", ())) != set(order["steps"]):
        yield "customer_notified"


def last_change(*held: Row | None) -> float:
    """Return how many seconds ago the latest row changed. After the clock was set back, an age can be negative."""
    return min((abs(row["age"]) for row in held if row), default=0)


def _broken_outcome(order: Row, reservation: Row, payment: Row) -> Iterator[str]:
    """Yield what a confirmed order lacks, or what a cancelled order still holds."""
    if order["status"] in {"CONFIRMED", "SHIPPED", "DELIVERED"}:
        if reservation.get("status") != "COMMITTED" or reservation["lines"] != order["lines"]:
            yield "confirmed_has_stock"
        if payment.get("status") not in PAID or not _same_money(order, payment):
            yield "confirmed_is_paid"
    elif order["status"] == "CANCELLED":
        # A missing row is an error too: without a tombstone, a late order.created would reserve and charge.
        if reservation.get("status") not in NO_STOCK_HELD:
            yield "cancelled_holds_no_stock"
        if payment.get("status") not in NO_MONEY_HELD:
            yield "cancelled_holds_no_money"


def _matches(status: str, held: Row) -> bool:
    """Tell whether the order has the status of its reservation or payment; a tombstone publishes no event."""
    return status == ("PENDING" if held.get("status") == TOMBSTONE else held.get("status"))


def _lines(reservation: Row) -> Any:
    """Return the units per product that a reservation has or had; None if it never had any."""
    if reservation.get("status") in {None, "FAILED", TOMBSTONE}:
        return reservation.get("lines") or None
    return reservation["lines"]


def _announced(payment: Row) -> bool:
    return payment.get("status") not in {None, "PENDING", TOMBSTONE}


def _same_money(order: Row, payment: Row) -> bool:
    return (payment["amount"], payment["currency"]) == (order["total_amount"], order["currency"])
