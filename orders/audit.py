"""What orders contributes to the consistency audit: its own checks, and what the other services should hold."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import case, func, select, text
from sqlalchemy.orm import Session

from contracts.operations import CheckResult
from extensions.operations.audits import (
    SHOWN_IDS,
    Fingerprints,
    Range,
    Span,
    check,
    fingerprints,
    seconds_since,
    within,
)
from orders.models import UNDECIDED, UNSETTLED, Order, OrderItem, TimelineEvent

RANGE = 100
MAX_RANGES = 2000
# Inventory stores lines for a reservation in these statuses; a failed reservation has none.
WITH_LINES = ("RESERVED", "COMMITTED", "RELEASED", "RETURNED")

UNDECIDED_ORDERS = f"SELECT id FROM orders WHERE {UNDECIDED.text}"  # noqa: S608  (a constant)

# One pass over the timeline: were the decisions possible (`odd`), and do they match the order's status (`moved`)?
DECISIONS = text("""
    WITH summaries AS (
        SELECT order_id,
               count(*) FILTER (WHERE event = 'order.confirmed') AS confirmed,
               count(*) FILTER (WHERE event = 'order.shipped') AS shipped,
               count(*) FILTER (WHERE event = 'order.delivered') AS delivered,
               count(*) FILTER (WHERE event = 'order.cancelled') AS cancelled,
               max(id) FILTER (WHERE event = 'order.confirmed') AS confirmed_at,
               min(id) FILTER (WHERE event = 'order.cancelled') AS cancelled_at,
               min(id) FILTER (WHERE event IN ('order.cancelled', 'order.delivered')) AS ended_at,
               max(id) AS last_at
        FROM timeline WHERE service = 'orders' AND order_id >= :since GROUP BY order_id
    ), judged AS (
        SELECT id,
               status <> 'CREATED' AND NOT (
                   confirmed <= 1 AND cancelled <= 1 AND confirmed + cancelled >= 1
                   AND (confirmed = 0 OR cancelled = 0 OR confirmed_at < cancelled_at)
               ) AS odd,
               ended_at < last_at OR status <> CASE
                   WHEN cancelled > 0 THEN 'CANCELLED' WHEN delivered > 0 THEN 'DELIVERED'
                   WHEN shipped > 0 THEN 'SHIPPED' WHEN confirmed > 0 THEN 'CONFIRMED' ELSE 'CREATED'
               END AS moved
        FROM (
            SELECT orders.id, orders.status, summaries.ended_at, summaries.last_at,
                   summaries.confirmed_at, summaries.cancelled_at,
                   coalesce(confirmed, 0) AS confirmed, coalesce(shipped, 0) AS shipped,
                   coalesce(delivered, 0) AS delivered, coalesce(cancelled, 0) AS cancelled
            FROM orders LEFT JOIN summaries ON summaries.order_id = orders.id WHERE orders.id >= :since
        ) AS every_order
    ), broken AS MATERIALIZED (SELECT id, odd, moved FROM judged WHERE odd OR moved)
    SELECT count(*) FILTER (WHERE odd),
           ARRAY(SELECT CAST(id AS text) FROM broken WHERE odd ORDER BY id DESC LIMIT :shown),
           count(*) FILTER (WHERE moved),
           ARRAY(SELECT CAST(id AS text) FROM broken WHERE moved ORDER BY id DESC LIMIT :shown)
    FROM broken
""")


def id_since(time: datetime | None) -> UUID:
    """Return the smallest id that can have been created at `time` or later: UUIDv7 begins with the time."""
    return UUID(int=0 if time is None else max(0, int(time.timestamp() * 1000)) << 80)


def span(session: Session, since: UUID) -> Span:
    """Divide the orders from `since` on into ranges of RANGE orders, or larger ones if there were over MAX_RANGES."""
    total = session.scalar(select(func.count()).where(Order.id >= since)) or 0
    size = max(RANGE, total // MAX_RANGES + 1)
    numbered = select(Order.id, func.row_number().over(order_by=Order.id).label("number")).where(Order.id >= since)
    rows = numbered.subquery()
    bounds = session.scalars(select(rows.c.id).where(rows.c.number % size == 0).order_by(rows.c.id))
    return Span(since, tuple(bounds))


def checks(session: Session, span: Span) -> list[CheckResult]:
    """Return the checks of the invariants that need no other service."""
    odd, odd_ids, moved, moved_ids = session.execute(DECISIONS, {"since": span.since, "shown": SHOWN_IDS}).one()
    return [
        check(session, "orders_decided", UNDECIDED_ORDERS),
        {"name": "decided_once", "count": odd, "ids": odd_ids},
        {"name": "ended_for_good", "count": moved, "ids": moved_ids},
    ]


def expected(session: Session, span: Span) -> dict[str, Fingerprints]:
    """Return the fingerprints that inventory, payments and notifications must have when the suite is at rest."""
    known = Order.payment_status != "PENDING"  # a pending payment has no amount to compare
    return {
        "stock": fingerprints(session, span, Order.id, [Order.stock_status]),
        "lines": fingerprints(
            session,
            span,
            OrderItem.order_id,
            [OrderItem.product_id, OrderItem.quantity],
            OrderItem.order_id == Order.id,
            Order.stock_status.in_(WITH_LINES),
        ),
        "payments": fingerprints(
            session,
            span,
            Order.id,
            [Order.payment_status, case((known, Order.total_amount)), case((known, Order.currency))],
        ),
        "notifications": fingerprints(
            session, span, TimelineEvent.order_id, [TimelineEvent.event], TimelineEvent.service == "orders"
        ),
    }


def unsettled(session: Session, span: Span) -> tuple[int, set[int]]:
    """Return how many orders are unsettled, and the numbers of their ranges."""
    number = span.number(Order.id).label("number")
    waiting = select(number).where(UNSETTLED, Order.id >= span.since).subquery()
    found = session.execute(select(waiting.c.number, func.count()).group_by(waiting.c.number))
    counts: dict[int, int] = {row[0]: row[1] for row in found}
    return sum(counts.values()), set(counts)


def rows(session: Session, ranges: Sequence[Range]) -> dict[str, Mapping[str, Any]]:
    """Return what the other services should hold for each order of the ranges, by order id. `age` is in seconds."""
    lines: dict[str, dict[str, int]] = {}
    for order_id, product_id, quantity in session.execute(
        select(OrderItem.order_id, OrderItem.product_id, OrderItem.quantity).where(within(OrderItem.order_id, ranges))
    ):
        of_order = lines.setdefault(str(order_id), {})
        of_order[str(product_id)] = of_order.get(str(product_id), 0) + quantity
    steps: dict[str, list[str]] = {}
    for order_id, event in session.execute(
        select(TimelineEvent.order_id, TimelineEvent.event).where(
            within(TimelineEvent.order_id, ranges), TimelineEvent.service == "orders"
        )
    ):
        steps.setdefault(str(order_id), []).append(event)
    orders = session.execute(
        select(
            Order.id,
            Order.status,
            Order.stock_status,
            Order.payment_status,
            Order.total_amount,
            Order.currency,
            seconds_since(Order.updated_at).label("age"),
            case((UNSETTLED, True), else_=False).label("unsettled"),
        ).where(within(Order.id, ranges))
    ).mappings()
    return {
        key: {
            **row,
            "total_amount": str(row["total_amount"]),
            "lines": lines.get(key, {}),
            "steps": steps.get(key, []),
        }
        for row in orders
        for key in [str(row["id"])]
    }
