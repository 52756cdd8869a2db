"""The part of the contract of notifications about webhooks: requests, views and errors.

Each delivery is a POST to the endpoint's URL, signed as Standard Webhooks 1.0.0 describes. Its body is
`{"type": "order.confirmed", "timestamp": "...", "data": {...}}`; `data` is the body of the event (docs/api.md).
"""

from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field, StrictBool

from contracts.base import ABSENT, Instant, PageRequest, Request, View, at_most
from contracts.errors import InvalidState, NotFound
from contracts.inventory import StockLow
from contracts.orders import OrderCancelled, OrderConfirmed, OrderCreated, OrderDelivered, OrderShipped
from contracts.payments import PaymentPartiallyRefunded, PaymentRefunded

MAX_URL = 2048
MAX_SUBSCRIBED = 20
MAX_WEBHOOKS = 10
"""Of one user."""

OWNED_EVENTS = (
    OrderCreated,
    OrderConfirmed,
    OrderCancelled,
    OrderShipped,
    OrderDelivered,
    PaymentRefunded,
    PaymentPartiallyRefunded,
)
"""Events about an order, which belong to its customer."""
SHOP_EVENTS = (StockLow,)
"""Events about the shop, for administrators."""
TEST_EVENT = "webhook.test"
"""The type of a test ping. Every endpoint receives it."""

EventName = Literal[
    "*",
    "order.*",
    "payment.*",
    "order.created",
    "order.confirmed",
    "order.cancelled",
    "order.shipped",
    "order.delivered",
    "payment.refunded",
    "payment.partially_refunded",
    "inventory.stock_low",
]
"""What an endpoint can subscribe to; `*`, `order.*` and `payment.*` include events that a later version adds."""

Events = Annotated[tuple[EventName, ...], Field(min_length=1, max_length=MAX_SUBSCRIBED), at_most(MAX_SUBSCRIBED)]
# The address is checked by the service, which resolves it.
Url = Annotated[str, Field(min_length=1, max_length=MAX_URL, json_schema_extra={"format": "uri"})]


class Scope(StrEnum):
    """Whose events an endpoint receives."""

    OWN = "OWN"
    """Those of its owner's orders."""
    SHOP = "SHOP"
    """Those of all orders, and of the stock; for administrators."""


class DisabledReason(StrEnum):
    """Why an endpoint receives nothing."""

    OWNER = "OWNER"
    """Its owner switched it off."""
    GONE = "GONE"
    """It responded with 410."""
    FAILING = "FAILING"
    """All deliveries of five days failed."""
    BACKLOG = "BACKLOG"
    """Too many deliveries were waiting for it."""
    NOT_ADMIN = "NOT_ADMIN"
    """It had the scope SHOP, and its owner is no longer an administrator."""


class DeliveryState(StrEnum):
    """The life of a delivery."""

    PENDING = "PENDING"
    """An attempt is due at `next_attempt_at`."""
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"
    """All attempts failed. POST /webhooks/deliveries/{id}/retry begins anew."""


# Requests


class CreateWebhook(Request):
    """The body of POST /webhooks. `scope` is SHOP by default for administrators, and OWN for all others."""

    url: Url
    events: Events = ("*",)
    scope: Scope | None = None


class UpdateWebhook(Request):
    """The body of PATCH /webhooks/{id}. `is_enabled`: true also forgets what failed before."""

    url: Url = ABSENT
    events: Events = ABSENT
    is_enabled: StrictBool = ABSENT


class ReplayEvents(Request):
    """The body of POST /webhooks/{id}/replay: events from `since` on, and before `until` (default: now)."""

    since: Instant
    until: Instant | None = None


class DeliveryFilter(PageRequest):
    """The query of GET /webhooks/{id}/deliveries."""

    state: DeliveryState | None = None


# Views


class WebhookView(View):
    """An endpoint. `failing_since`: the first failure after the last success; null if the last attempt succeeded."""

    id: UUID
    url: str
    events: tuple[str, ...]
    scope: Scope
    is_enabled: bool
    disabled_reason: DisabledReason | None
    failing_since: Instant | None
    old_secret_expires_at: Instant | None
    """Until then, deliveries have a second signature, with the secret before the last rotation."""
    created_at: Instant
    updated_at: Instant


class WebhookSecretView(WebhookView):
    """An endpoint with its secret, which is shown here only: when it is created, and when the secret is rotated."""

    secret: str


class DeliveryView(View):
    """One event for one endpoint, and its latest attempt. `event_id` is the header `webhook-id`.

    `response_body` is the beginning of the response: up to 20,000 bytes of it, in a list up to 1,000 characters.
    """

    id: UUID
    webhook_id: UUID
    event_id: UUID
    event: str
    state: DeliveryState
    attempts: int
    next_attempt_at: Instant | None
    last_attempt_at: Instant | None
    response_status: int | None
    response_body: str | None
    duration_ms: int | None
    error: str | None
    created_at: Instant


class ReplayView(View):
    """How many deliveries are due now. If there are more events, `continue_since` is the `since` for the rest."""

    scheduled: int
    continue_since: Instant | None


# Errors


class WebhookNotFound(NotFound):
    """The endpoint does not exist, or belongs to another user."""

    code, status, detail = "WEBHOOK_NOT_FOUND", 404, "There is no webhook with this id."


class DeliveryNotFound(NotFound):
    """The delivery does not exist, or belongs to another user's endpoint."""

    code, status, detail = "DELIVERY_NOT_FOUND", 404, "There is no delivery with this id."


class TooManyWebhooks(InvalidState):
    """The user has as many endpoints as are allowed."""

    detail = f"A user may have {MAX_WEBHOOKS} webhooks. Delete one, or change it."


class WebhookDisabled(InvalidState):
    """The endpoint is disabled, so nothing can be sent to it."""

    detail = "The webhook is disabled. Enable it first: PATCH with is_enabled true."
