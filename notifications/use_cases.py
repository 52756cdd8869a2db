"""The use cases of the notifications service. They never commit: the entrypoint does.

Those of webhooks are in webhooks.py and deliveries.py, those of the replica of users in recipients.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import func
from sqlalchemy.orm import Session

from contracts.base import Actor, Received
from contracts.ids import new_id
from contracts.inventory import StockLow
from contracts.notifications import NotificationNotFound
from contracts.orders import OrderCancelled, OrderConfirmed, OrderCreated, OrderDelivered, OrderShipped
from contracts.payments import PaymentPartiallyRefunded
from contracts.users import UserRegistered
from extensions.storage.bulk import insert_rows
from notifications import mails
from notifications.deliveries import deliver_events
from notifications.models import Base, Notification
from notifications.preferences import Channel, wants
from notifications.recipients import administrators, apply_user_events, recipients
from notifications.templates import TEMPLATES, message_for

ONCE = (OrderCreated, OrderConfirmed, OrderCancelled, OrderShipped, OrderDelivered)
"""Events that happen once to an order. The consistency check compares their notifications with the orders."""


def notify(session: Session, events: Sequence[Received[Any]], *, with_mails: bool) -> set[str]:
    """Tell the users about events, on the channels that they want. A duplicate of an event tells nothing again.

    Returns the kinds of the work items that are due.
    """
    apply_user_events(session, events, with_mails=with_mails)
    told = list(_told(session, events))
    known = recipients(session, (user_id for _, user_id in told))
    rows = [_row(received, user_id, known.get(user_id)) for received, user_id in told if _is_listed(received)]
    insert_rows(session, Base.metadata.tables["notifications"], rows, on_conflict="(about_id, kind) DO NOTHING")
    kinds = deliver_events(session, events)
    if with_mails:
        written = [
            row
            for received, user_id in told
            for row in mails.rows_about(received, user_id, _about(received, user_id), known.get(user_id))
        ]
        kinds |= mails.store(session, written)
        kinds |= mails.address_waiting(
            session, (one.event.user_id for one in events if isinstance(one.event, UserRegistered))
        )
    return kinds


def mark_read(session: Session, notification_id: UUID, actor: Actor) -> None:
    """Record when the user read it first. Raises NotificationNotFound."""
    notification = session.get(Notification, notification_id, with_for_update=True)
    if notification is None or actor.user_id not in {None, notification.user_id} or not notification.in_app:
        raise NotificationNotFound
    if notification.read_at is None:
        notification.read_at = func.clock_timestamp()


def _told(session: Session, events: Sequence[Received[Any]]) -> Iterator[tuple[Received[Any], UUID]]:
    """Yield each event that a user is told in some way, with each of these users."""
    for received in events:
        event = received.event
        if not _is_listed(received) and not isinstance(event, mails.ALWAYS):
            continue
        if isinstance(event, StockLow):
            yield from ((received, user_id) for user_id in administrators(session))
        elif event.user_id is not None:
            yield received, event.user_id


def _is_listed(received: Received[Any]) -> bool:
    return type(received.event) in TEMPLATES


def _row(received: Received[Any], user_id: UUID, recipient: Any) -> dict[str, Any]:
    event = received.event
    is_deleted = recipient is not None and recipient.deleted_at is not None
    preferences: Mapping[str, Any] = {} if recipient is None else recipient.preferences
    message = message_for(event)
    return {
        "id": new_id(),
        "user_id": user_id,
        "about_id": _about(received, user_id),
        "order_id": getattr(event, "order_id", None),
        "kind": event.event_type,
        "subject": "" if is_deleted else message.subject,
        "body": "" if is_deleted else message.body,
        "in_app": not is_deleted and wants(preferences, event.event_type, Channel.IN_APP),
    }


def _about(received: Received[Any], user_id: UUID) -> UUID:
    """Return the id that, with the kind, identifies what is told: it is told once."""
    event = received.event
    if isinstance(event, (StockLow, PaymentPartiallyRefunded)):  # may happen several times to one thing
        return uuid5(user_id, str(received.message_id))
    about: UUID = getattr(event, "order_id", None) or user_id
    return about
