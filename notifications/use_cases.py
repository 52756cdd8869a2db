"""The use cases of the notifications service. They never commit: the entrypoint does."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import func
from sqlalchemy.orm import Session

from contracts.base import Actor, Received
from contracts.ids import new_id
from contracts.notifications import NotificationNotFound
from extensions.storage.bulk import insert_rows
from notifications.models import Base, Notification
from notifications.templates import message_for


def notify(session: Session, events: Sequence[Received[Any]]) -> None:
    """Store a notification for each event; a duplicate of an event stores none."""
    rows = [_row(received.event) for received in events]
    insert_rows(session, Base.metadata.tables["notifications"], rows, on_conflict="(about_id, kind) DO NOTHING")


def mark_read(session: Session, notification_id: UUID, actor: Actor) -> None:
    """Record when the user read it first. Raises NotificationNotFound."""
    notification = session.get(Notification, notification_id, with_for_update=True)
    if notification is None or actor.user_id not in {None, notification.user_id}:
        raise NotificationNotFound
    if notification.read_at is None:
        notification.read_at = func.clock_timestamp()


def _row(event: Any) -> dict[str, Any]:
    message = message_for(event)
    order_id = getattr(event, "order_id", None)
    return {
        "id": new_id(),
        "user_id": event.user_id,
        "about_id": order_id or event.user_id,
        "order_id": order_id,
        "kind": event.event_type,
        "subject": message.subject,
        "body": message.body,
    }
