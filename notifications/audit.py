"""What notifications contributes to the consistency audit."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from extensions.operations.audits import Fingerprints, Range, Span, fingerprints, seconds_since, within
from notifications.models import Notification
from notifications.use_cases import ONCE

# Other notifications about an order, such as that of a refund, are no part of the comparison.
ABOUT_ORDERS = Notification.kind.in_([event.event_type for event in ONCE])


def held(session: Session, span: Span) -> dict[str, Fingerprints]:
    """Return the fingerprints of the notifications about orders."""
    return {"notifications": fingerprints(session, span, Notification.about_id, [Notification.kind], ABOUT_ORDERS)}


def rows(session: Session, ranges: Sequence[Range]) -> dict[str, Any]:
    """Return the kinds of notifications for each order of the ranges, by order id. `age` is in seconds."""
    age = seconds_since(Notification.created_at)
    notified: dict[str, Any] = {}
    for order_id, kind, seconds in session.execute(
        select(Notification.about_id, Notification.kind, age).where(within(Notification.about_id, ranges), ABOUT_ORDERS)
    ):
        about = notified.setdefault(str(order_id), {"kinds": [], "age": seconds})
        about["kinds"].append(kind)
        about["age"] = min(about["age"], seconds)
    return notified
