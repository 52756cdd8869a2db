"""Which invariants an order breaks, as a pure function of what the services hold about it."""

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
STOCK_GIVEN_UP = {"FAILED", "RELEASED", "RETURNED", TOMBSTONE}
MONEY_GIVEN_UP = {"FAILED", "VOIDED", "REFUNDED", TOMBSTONE}


def broken_by(order: Row | None, reservation: Row | None, payment: Row | None, told: Row | None) -> Iterator[str]:
    """Yield the invariants that are broken by what is held about one order. None: nothing is held."""
    reservation, payment, told = reservation or NOTHING, payment or NOTHING, told or NOTHING
    if order is None:
        if told or any(held.get("status", TOMBSTONE) != TOMBSTONE for held in (reservation, payment)):
            yield "no_orphans"
        return
    yield from _broken_ends(order, reservation, payment)
    if not _knows(order["stock_status"], reservation) or _lines(reservation) not in (None, order["lines"]):
        yield "order_knows_stock"
    if not _knows(order["payment_status"], payment) or (_announced(payment) and not _same_money(order, payment)):
        yield "order_knows_payment"
    if set(told.get("kinds", ())) != set(order["steps"]):
        yield "customer_notified"


def last_change(*held: Row | None) -> float:
    """Return how many seconds ago any of it changed. A clock that was set back makes some times lie ahead."""
    return min((abs(row["age"]) for row in held if row), default=0)


def _broken_ends(order: Row, reservation: Row, payment: Row) -> Iterator[str]:
    """Yield what a confirmed order must have and does not, or a cancelled one must not hold and does."""
    if order["status"] in {"CONFIRMED", "SHIPPED", "DELIVERED"}:
        if reservation.get("status") != "COMMITTED" or reservation["lines"] != order["lines"]:
            yield "confirmed_has_stock"
        if payment.get("status") != "CAPTURED" or not _same_money(order, payment):
            yield "confirmed_is_paid"
    elif order["status"] == "CANCELLED":
        # Nothing at all is not enough: without a tombstone, a late order.created would still reserve and charge.
        if reservation.get("status") not in STOCK_GIVEN_UP:
            yield "cancelled_holds_no_stock"
        if payment.get("status") not in MONEY_GIVEN_UP:
            yield "cancelled_holds_no_money"


def _knows(status: str, held: Row) -> bool:
    """Tell whether the order knows what became of its part; a tombstone is never announced."""
    return status == ("PENDING" if held.get("status") == TOMBSTONE else held.get("status"))


def _lines(reservation: Row) -> Any:
    """Return the units per product that a reservation has or had, None where it never got any."""
    if reservation.get("status") in {None, "FAILED", TOMBSTONE}:
        return reservation.get("lines") or None
    return reservation["lines"]


def _announced(payment: Row) -> bool:
    return payment.get("status") not in {None, "PENDING", TOMBSTONE}


def _same_money(order: Row, payment: Row) -> bool:
    return (payment["amount"], payment["currency"]) == (order["total_amount"], order["currency"])
