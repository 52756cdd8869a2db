"""What payments contributes to the consistency audit."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import case, select
from sqlalchemy.orm import Session

from contracts.operations import CheckResult
from extensions.operations.audits import Fingerprints, Range, Span, check, fingerprints, seconds_since, within
from payments.models import Payment
from payments.rules import State

UNANNOUNCED = (State.PENDING, State.CANCELLED_BEFORE)

# The sums that a payment stores are those of its refunds.
SUMS_DIFFER = """
    SELECT payments.id
    FROM payments LEFT JOIN (
        SELECT payment_id, sum(amount) FILTER (WHERE status <> 'FAILED') AS requested,
               sum(amount) FILTER (WHERE status = 'SUCCEEDED') AS made
        FROM refunds GROUP BY payment_id
    ) AS refunds ON refunds.payment_id = payments.id
    WHERE refund_requested_amount <> coalesce(requested, 0) OR refunded_amount <> coalesce(made, 0)
"""

# At most what was captured is refunded, all of it where the payment is REFUNDED, and nothing that was not captured.
REFUNDS_DIFFER = """
    SELECT id FROM payments
    WHERE NOT CASE status
        WHEN 'REFUNDED' THEN refunded_amount = amount AND refund_requested_amount = amount
        WHEN 'PARTIALLY_REFUNDED' THEN 0 < refunded_amount AND refunded_amount < amount
                                       AND refund_requested_amount <= amount
        WHEN 'CAPTURED' THEN refunded_amount = 0 AND refund_requested_amount <= amount
        ELSE refund_requested_amount = 0 AND refunded_amount = 0
    END
"""


def checks(session: Session) -> list[CheckResult]:
    """Return the invariants that payments can check without the other services."""
    return [check(session, "refunds_sum", SUMS_DIFFER), check(session, "refunds_within_capture", REFUNDS_DIFFER)]


def held(session: Session, span: Span) -> dict[str, Fingerprints]:
    """Return the fingerprints of the payments."""
    # Payments has published no event about these, so the order still says PENDING.
    unannounced = Payment.status.in_(UNANNOUNCED)
    said = [
        case((unannounced, "PENDING"), else_=Payment.status),
        case((~unannounced, Payment.amount)),
        case((~unannounced, Payment.currency)),
    ]
    return {"payments": fingerprints(session, span, Payment.order_id, said)}


def rows(session: Session, ranges: Sequence[Range]) -> dict[str, Any]:
    """Return each payment of some ranges of orders, by the order's id. `age` is in seconds."""
    age = seconds_since(Payment.updated_at)
    found = session.execute(
        select(Payment.order_id, Payment.status, Payment.amount, Payment.currency, age).where(
            within(Payment.order_id, ranges)
        )
    )
    return {
        str(order_id): {"status": status, "amount": str(amount), "currency": currency, "age": seconds}
        for order_id, status, amount, currency, seconds in found
    }
