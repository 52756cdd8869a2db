"""The use case of the loyalty service. It never commits: the entrypoint does."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from contracts.base import Received
from contracts.orders import OrderCancelled, OrderConfirmed
from extensions.storage.bulk import insert_rows
from loyalty.models import Base


def award_points(session: Session, events: Sequence[Received[OrderConfirmed | OrderCancelled]]) -> None:
    """Award a point for each whole unit of a confirmed order, and none for a cancelled one, in any order of arrival."""
    confirmed, cancelled = {}, {}
    for event in (received.event for received in events):
        row = {"order_id": event.order_id, "user_id": event.user_id}
        if isinstance(event, OrderConfirmed):
            confirmed[event.order_id] = row | {"points": int(event.total_amount)}
        else:
            cancelled[event.order_id] = row | {"points": 0}
    awards = Base.metadata.tables["awards"]
    insert_rows(session, awards, [*confirmed.values()], on_conflict="(order_id) DO NOTHING")
    insert_rows(session, awards, [*cancelled.values()], on_conflict="(order_id) DO UPDATE SET points = 0")
