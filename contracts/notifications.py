"""The contract of the notifications service: its requests, views, RPC interface and errors. It publishes no events."""

from typing import Annotated, Literal, Protocol
from uuid import UUID

from pydantic import Field

from contracts.base import OPERATOR, Actor, Id, Instant, Json, Page, PageRequest, Request, View
from contracts.errors import NotFound
from contracts.operations import ParticipantRpc

MAX_STREAM_USERS = 100


class NotificationFilter(PageRequest):
    """The query of GET /notifications."""


class NotificationView(View):
    """A message to a user about an order or the account. `status` is `SENT` until it is `READ`."""

    id: UUID
    order_id: UUID | None
    kind: str
    subject: str
    body: str
    channel: Literal["IN_APP"]
    status: Literal["SENT", "READ"]
    created_at: Instant
    read_at: Instant | None


class NotificationPosition(Request):
    """A user, and the last notification that the caller knows: the transaction that wrote it, and its id."""

    user_id: Id
    xact: Annotated[int, Field(ge=0)]
    id: Id


class NotificationPositions(Request):
    """What the caller knows of several users. Without any it learns the present position."""

    users: Annotated[tuple[NotificationPosition, ...], Field(max_length=MAX_STREAM_USERS)]


class NewNotification(View):
    """A notification, its user, and the transaction that wrote it."""

    user_id: UUID
    xact: int
    notification: NotificationView


class NewNotifications(View):
    """New notifications, those of a user in their order. `xact` and `id` are the present position."""

    items: tuple[NewNotification, ...]
    xact: int
    id: UUID
    is_complete: bool


class NotificationsRpc(ParticipantRpc, Protocol):
    """RPC methods of the notifications service."""

    def list_notifications(
        self, wanted: NotificationFilter, *, actor: Actor = OPERATOR
    ) -> Json[Page[NotificationView]]:
        """List the actor's own notifications, newest first. The operator gets those of all users."""

    def list_new(self, wanted: NotificationPositions, *, actor: Actor = OPERATOR) -> Json[NewNotifications]:
        """Return what several users have got since a position of each (admin)."""

    def mark_read(self, notification_id: UUID, *, actor: Actor = OPERATOR, idempotency_key: str | None = None) -> None:
        """Mark a notification as read. A repeated call changes nothing. Raises NotificationNotFound."""


class NotificationNotFound(NotFound):
    """The notification does not exist, or belongs to another user."""

    code, status, detail = "NOTIFICATION_NOT_FOUND", 404, "There is no notification with this id."
