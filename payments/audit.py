"""What payments contributes to the consistency audit."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import case, select
from sqlalchemy.orm import Session

from extensions.operations.audits import Fingerprints, Range, Span, fingerprints, seconds_since, within
from payments.models import Payment
from payments.rules import State

UNANNOUNCED = (State.PENDING, State.CANCELLED_BEFORE)


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
