"""The queries of the notifications service."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from contracts.base import Actor, Json, Page, page_of
from contracts.notifications import NotificationFilter, NotificationView
from extensions.storage.pagination import fetch_page
from notifications.models import Notification


def list_notifications(session: Session, wanted: NotificationFilter, actor: Actor) -> Json[Page[NotificationView]]:
    """Return a page of NotificationView, newest first: the actor's own, or all for the operator."""
    notifications = select(Notification)
    if actor.user_id is not None:  # administrators, too, read only their own
        notifications = notifications.where(Notification.user_id == actor.user_id)
    rows, cursor = fetch_page(session, notifications, keys=[Notification.id], limit=wanted.limit, cursor=wanted.cursor)
    return page_of([NotificationView.model_validate(row) for row in rows], cursor)
