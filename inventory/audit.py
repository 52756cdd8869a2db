"""What inventory contributes to the consistency audit."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import case, select
from sqlalchemy.orm import Session

from contracts.operations import CheckResult
from extensions.operations.audits import Fingerprints, Range, Span, check, fingerprints, seconds_since, within
from inventory.models import Reservation, ReservationLine
from inventory.rules import Status

# Each query finds the products that break one invariant.
UNSOUND = "SELECT product_id FROM stock WHERE NOT (0 <= reserved AND reserved <= on_hand)"

RESERVED_DIFFERS = """
    SELECT coalesce(stock.product_id, held.product_id)
    FROM stock FULL JOIN (
        SELECT product_id, sum(quantity) AS quantity
        FROM reservations JOIN reservation_lines USING (order_id) WHERE status = 'RESERVED' GROUP BY product_id
    ) AS held ON held.product_id = stock.product_id
    WHERE coalesce(stock.reserved, 0) <> coalesce(held.quantity, 0)
"""

# Movements without an order are entered by people; what orders took is in their reservations.
TAKEN_DIFFERS = """
    SELECT product_id
    FROM stock
    FULL JOIN (
        SELECT product_id, sum(quantity) AS quantity
        FROM reservations JOIN reservation_lines USING (order_id) WHERE status = 'COMMITTED' GROUP BY product_id
    ) AS taken USING (product_id)
    FULL JOIN (
        SELECT product_id, sum(on_hand_delta) AS quantity FROM movements WHERE order_id IS NULL GROUP BY product_id
    ) AS entered USING (product_id)
    WHERE coalesce(entered.quantity, 0) - coalesce(taken.quantity, 0) <> coalesce(stock.on_hand, 0)
"""

# Each entry continues the balance of the entry before it, and the last balance equals the stock.
LEDGER_DIFFERS = """
    SELECT product_id
    FROM stock FULL JOIN (
        SELECT product_id, sum(on_hand_delta) AS on_hand, sum(reserved_delta) AS reserved, bool_and(follows) AS follows
        FROM (
            SELECT product_id, on_hand_delta, reserved_delta,
                   on_hand = on_hand_delta + lag(on_hand, 1, 0::bigint) OVER entries
                   AND reserved = reserved_delta + lag(reserved, 1, 0::bigint) OVER entries AS follows
            FROM movements WINDOW entries AS (PARTITION BY product_id ORDER BY entry)
        ) AS chain GROUP BY product_id
    ) AS ledger USING (product_id)
    WHERE stock.on_hand IS DISTINCT FROM coalesce(ledger.on_hand, 0)
          OR stock.reserved IS DISTINCT FROM coalesce(ledger.reserved, 0)
          OR NOT coalesce(follows, true)
"""


LOW_DIFFERS = "SELECT product_id FROM stock WHERE is_low <> coalesce(on_hand - reserved < low_stock, false)"


def checks(session: Session) -> list[CheckResult]:
    """Return the invariants that inventory can check without the other services."""
    return [
        check(session, "stock_in_bounds", UNSOUND),
        check(session, "stock_reserved", RESERVED_DIFFERS),
        check(session, "stock_balance", TAKEN_DIFFERS),
        check(session, "stock_ledger", LEDGER_DIFFERS),
        check(session, "stock_low_known", LOW_DIFFERS),
    ]


def held(session: Session, span: Span) -> dict[str, Fingerprints]:
    """Return the fingerprints of the reservations and of their lines."""
    # A tombstone publishes no event, so the order still says PENDING.
    status = case((Reservation.status == Status.CANCELLED_BEFORE, "PENDING"), else_=Reservation.status)
    return {
        "stock": fingerprints(session, span, Reservation.order_id, [status]),
        "lines": fingerprints(
            session, span, ReservationLine.order_id, [ReservationLine.product_id, ReservationLine.quantity]
        ),
    }


def rows(session: Session, ranges: Sequence[Range]) -> dict[str, Any]:
    """Return each reservation of some ranges of orders, by the order's id. `age` is in seconds."""
    age = seconds_since(Reservation.updated_at)
    found = session.execute(
        select(Reservation.order_id, Reservation.status, age).where(within(Reservation.order_id, ranges))
    )
    reservations: dict[str, Any] = {
        str(order_id): {"status": status, "age": seconds, "lines": {}} for order_id, status, seconds in found
    }
    lines = session.execute(
        select(ReservationLine.order_id, ReservationLine.product_id, ReservationLine.quantity).where(
            within(ReservationLine.order_id, ranges)
        )
    )
    for order_id, product_id, quantity in lines:
        reservations[str(order_id)]["lines"][str(product_id)] = quantity
    return reservations
