"""The contract of the payments service: its events, requests, views, RPC interface and errors."""

import re
from enum import StrEnum
from typing import Annotated, ClassVar, Protocol
from uuid import UUID

from pydantic import AfterValidator, Field

from contracts.base import OPERATOR, Actor, Currency, Event, Id, Instant, Json, Money, Page, PageRequest, View
from contracts.errors import NotFound
from contracts.operations import ParticipantRpc


class PaymentStatus(StrEnum):
    """The life of a payment."""

    PENDING = "PENDING"
    AUTHORIZED = "AUTHORIZED"
    FAILED = "FAILED"
    CAPTURED = "CAPTURED"
    VOIDED = "VOIDED"
    REFUNDED = "REFUNDED"


DEFAULT_PAYMENT_METHOD = "pm_ok"
PAYMENT_METHODS = (
    r"^pm_(ok|declined|insufficient_funds|hangs|answer_lost|duplicate_answer"
    r"|slow_[0-9]{1,6}|(error|capture_fails|refund_fails)_[0-9]{1,3})$"
)


def _known_method(name: str) -> str:
    if not re.fullmatch(PAYMENT_METHODS, name):
        message = f"is not a payment method of the simulated provider, such as {DEFAULT_PAYMENT_METHOD}"
        raise ValueError(message)
    return name


PaymentMethod = Annotated[
    str,
    Field(json_schema_extra={"pattern": PAYMENT_METHODS}, examples=[DEFAULT_PAYMENT_METHOD]),
    AfterValidator(_known_method),
]
"""What the simulated provider does with a payment; payments/script.py describes each."""


# Events


class PaymentAuthorized(Event):
    """The provider has authorised the payment."""

    event_type: ClassVar[str] = "payment.authorized"
    producer: ClassVar[str] = "payments"
    consumers: ClassVar[tuple[str, ...]] = ("orders",)

    order_id: UUID
    payment_id: UUID
    transaction_reference: str
    amount: Money
    currency: Currency


class PaymentFailed(Event):
    """The provider declined."""

    event_type: ClassVar[str] = "payment.failed"
    producer: ClassVar[str] = "payments"
    consumers: ClassVar[tuple[str, ...]] = ("orders",)

    order_id: UUID
    payment_id: UUID
    reason: str


class PaymentCaptured(Event):
    """The payment was captured."""

    event_type: ClassVar[str] = "payment.captured"
    producer: ClassVar[str] = "payments"
    consumers: ClassVar[tuple[str, ...]] = ("orders",)

    order_id: UUID
    payment_id: UUID


class PaymentVoided(Event):
    """The authorisation was voided before it was captured."""

    event_type: ClassVar[str] = "payment.voided"
    producer: ClassVar[str] = "payments"
    consumers: ClassVar[tuple[str, ...]] = ("orders",)

    order_id: UUID
    payment_id: UUID


class PaymentPartiallyRefunded(Event):
    """A part of the captured payment was given back: `amount`. `remaining` is what is still captured afterwards."""

    event_type: ClassVar[str] = "payment.partially_refunded"
    producer: ClassVar[str] = "payments"
    consumers: ClassVar[tuple[str, ...]] = ("orders",)

    order_id: UUID
    payment_id: UUID
    amount: Money
    remaining: Money
    currency: Currency
    user_id: UUID | None = None
    """The customer. None only if another producer left it out."""


class PaymentRefunded(Event):
    """All that was captured has been given back. `amount` is what this last refund gave back.

    The optional fields are None in events of version 0.1.0.
    """

    event_type: ClassVar[str] = "payment.refunded"
    producer: ClassVar[str] = "payments"
    consumers: ClassVar[tuple[str, ...]] = ("orders",)

    order_id: UUID
    payment_id: UUID
    amount: Money | None = None
    currency: Currency | None = None
    user_id: UUID | None = None


# Requests and views


class PaymentFilter(PageRequest):
    """The query of GET /payments."""

    order_id: Id | None = None
    status: PaymentStatus | None = None


class PaymentView(View):
    """The payment of one order."""

    id: UUID
    order_id: UUID
    user_id: UUID
    amount: Money
    currency: str
    status: PaymentStatus
    transaction_reference: str | None
    failure_reason: str | None
    created_at: Instant
    updated_at: Instant


class ProviderCallView(View):
    """A call of the payment provider that is not finished. Between attempts, `lease_owner` is null."""

    payment_id: UUID
    kind: str
    state: str
    attempts: int
    next_attempt_at: Instant
    lease_owner: str | None
    last_error: str | None
    created_at: Instant


class PaymentsRpc(ParticipantRpc, Protocol):
    """RPC methods of payments."""

    def list_payments(self, wanted: PaymentFilter, *, actor: Actor = OPERATOR) -> Json[Page[PaymentView]]:
        """List payments, newest first: those of the actor, or of all users if the actor is an administrator."""

    def get_payment(self, payment_id: UUID, *, actor: Actor = OPERATOR) -> Json[PaymentView]:
        """Return one payment. Raises PaymentNotFound."""

    def get_payment_of_order(self, order_id: UUID, *, actor: Actor = OPERATOR) -> Json[PaymentView]:
        """Return the payment of an order. Raises PaymentNotFound."""

    def list_provider_calls(self, wanted: PageRequest, *, actor: Actor = OPERATOR) -> Json[Page[ProviderCallView]]:
        """List the calls of the payment provider that are not finished, newest payments first (admin)."""


class PaymentNotFound(NotFound):
    """The payment does not exist, or belongs to another user."""

    code, status, detail = "PAYMENT_NOT_FOUND", 404, "There is no such payment."
