"""The contract of the notifications service: its requests, views, RPC interface and errors. It publishes no events.

The requests and views of webhooks are in contracts/webhooks.py.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, Protocol, get_args
from uuid import UUID

from pydantic import Field, StrictBool

from contracts.base import ABSENT, OPERATOR, Actor, Id, Instant, Json, Page, PageRequest, Request, View, at_most
from contracts.errors import NotFound
from contracts.operations import ParticipantRpc
from contracts.webhooks import (
    CreateWebhook,
    DeliveryFilter,
    DeliveryView,
    ReplayEvents,
    ReplayView,
    UpdateWebhook,
    WebhookSecretView,
    WebhookView,
)

MAX_STATED = 50
Kind = Literal[
    "user.registered",
    "order.created",
    "order.confirmed",
    "order.cancelled",
    "order.shipped",
    "order.delivered",
    "payment.refunded",
    "payment.partially_refunded",
    "inventory.stock_low",
]
"""The kinds of messages: the events that users are told about."""
KINDS: tuple[str, ...] = get_args(Kind)

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


class ChannelsOfKind(Request):
    """The channels of one kind of message. A channel that is left out has its default."""

    kind: Kind
    in_app: StrictBool = ABSENT
    email: StrictBool = ABSENT
    webhook: StrictBool = ABSENT


class SetPreferences(Request):
    """The body of PUT /users/me/notification-preferences. Kinds that are left out have their defaults."""

    items: Annotated[tuple[ChannelsOfKind, ...], Field(max_length=MAX_STATED), at_most(MAX_STATED)]


class PreferenceItem(View):
    """The channels of one kind of message. `webhook` also needs an endpoint that subscribes to the kind."""

    kind: str
    in_app: bool
    email: bool
    webhook: bool


class PreferencesView(View):
    """What a user wants to be told, and how. Mails that the user asks for, such as for a password, are always sent."""

    items: tuple[PreferenceItem, ...]


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

    def get_preferences(self, user_id: UUID, *, actor: Actor = OPERATOR) -> Json[PreferencesView]:
        """Return the preferences of a user. Raises PreferencesNotFound if the actor is another user."""

    def set_preferences(
        self,
        user_id: UUID,
        wanted: SetPreferences,
        *,
        actor: Actor = OPERATOR,
        if_match: Sequence[str] | None = None,
    ) -> Json[PreferencesView]:
        """Replace the preferences of a user. Raises PreferencesNotFound."""

    def create_webhook(
        self, webhook: CreateWebhook, *, actor: Actor = OPERATOR, idempotency_key: str | None = None
    ) -> Json[WebhookSecretView]:
        """Register an endpoint of the actor, and return it with its secret.

        Raises ValidationFailed for a URL that no request may go to, PermissionDenied, TooManyWebhooks.
        """

    def list_webhooks(self, wanted: PageRequest, *, actor: Actor = OPERATOR) -> Json[Page[WebhookView]]:
        """List the actor's endpoints, newest first. The operator gets those of all users."""

    def get_webhook(self, webhook_id: UUID, *, actor: Actor = OPERATOR) -> Json[WebhookView]:
        """Return an endpoint of the actor. Raises WebhookNotFound."""

    def update_webhook(
        self,
        webhook_id: UUID,
        changes: UpdateWebhook,
        *,
        actor: Actor = OPERATOR,
        if_match: Sequence[str] | None = None,
    ) -> Json[WebhookView]:
        """Change an endpoint, or switch it on or off. Raises WebhookNotFound, and as create_webhook."""

    def delete_webhook(self, webhook_id: UUID, *, actor: Actor = OPERATOR) -> None:
        """Delete an endpoint with its deliveries. Raises WebhookNotFound."""

    def rotate_webhook_secret(
        self, webhook_id: UUID, *, actor: Actor = OPERATOR, idempotency_key: str | None = None
    ) -> Json[WebhookSecretView]:
        """Give an endpoint a new secret. For a day, deliveries are signed with both. Raises WebhookNotFound."""

    def test_webhook(
        self, webhook_id: UUID, *, actor: Actor = OPERATOR, idempotency_key: str | None = None
    ) -> Json[DeliveryView]:
        """Send a ping to an endpoint. Raises WebhookNotFound, WebhookDisabled."""

    def replay_events(
        self,
        webhook_id: UUID,
        replay: ReplayEvents,
        *,
        actor: Actor = OPERATOR,
        idempotency_key: str | None = None,
    ) -> Json[ReplayView]:
        """Deliver the events of a time range again, also those that were delivered.

        Raises WebhookNotFound, WebhookDisabled.
        """

    def list_deliveries(
        self, webhook_id: UUID, wanted: DeliveryFilter, *, actor: Actor = OPERATOR
    ) -> Json[Page[DeliveryView]]:
        """List the deliveries to an endpoint, newest first. Raises WebhookNotFound."""

    def get_delivery(self, delivery_id: UUID, *, actor: Actor = OPERATOR) -> Json[DeliveryView]:
        """Return a delivery. Raises DeliveryNotFound."""

    def retry_delivery(
        self, delivery_id: UUID, *, actor: Actor = OPERATOR, idempotency_key: str | None = None
    ) -> Json[DeliveryView]:
        """Attempt a delivery now, and as often as a new one. Raises DeliveryNotFound, WebhookDisabled."""


class NotificationNotFound(NotFound):
    """The notification does not exist, or belongs to another user."""

    code, status, detail = "NOTIFICATION_NOT_FOUND", 404, "There is no notification with this id."


class PreferencesNotFound(NotFound):
    """The user does not exist any more, or is another one."""

    code, status, detail = "PREFERENCES_NOT_FOUND", 404, "There are no preferences of this user."
