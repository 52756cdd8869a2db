"""What notifications says: its views, requests and errors. It publishes no events."""

from typing import Literal
from uuid import UUID

from contracts.base import Instant, PageRequest, View
from contracts.errors import NotFound


class NotificationFilter(PageRequest):
    """What GET /notifications takes."""


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


class NotificationNotFound(NotFound):
    """No such notification, or it is someone else's."""

    code, status, detail = "NOTIFICATION_NOT_FOUND", 404, "There is no notification with this id."
