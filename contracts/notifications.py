"""The contract of the notifications service: its requests, views, RPC interface and errors. It publishes no events."""

from typing import Literal, Protocol
from uuid import UUID

from contracts.base import OPERATOR, Actor, Instant, Json, Page, PageRequest, View
from contracts.errors import NotFound
from contracts.operations import ParticipantRpc


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


class NotificationsRpc(ParticipantRpc, Protocol):
    """RPC methods of the notifications service."""

    def list_notifications(
        self, wanted: NotificationFilter, *, actor: Actor = OPERATOR
    ) -> Json[Page[NotificationView]]:
        """List the actor's own notifications, newest first. The operator gets those of all users."""

    def mark_read(self, notification_id: UUID, *, actor: Actor = OPERATOR, idempotency_key: str | None = None) -> None:
        """Mark a notification as read. A repeated call changes nothing. Raises NotificationNotFound."""


class NotificationNotFound(NotFound):
    """The notification does not exist, or belongs to another user."""

    code, status, detail = "NOTIFICATION_NOT_FOUND", 404, "There is no notification with this id."
