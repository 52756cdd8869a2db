"""The contract of the payments service: its events, requests, views, RPC interface and errors."""

import re
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, ClassVar, Protocol
from uuid import UUID

from pydantic import AfterValidator, Field, WithJsonSchema

from contracts.base import (
    OPERATOR,
    Actor,
    Currency,
    Event,
    Id,
    Instant,
    Json,
    Money,
    NullIsAbsent,
    Page,
    PageRequest,
    View,
)
from contracts.errors import NotFound
from contracts.operations import ParticipantRpc
from contracts.text import Line


class PaymentStatus(StrEnum):
    """The life of a payment."""

    PENDING = "PENDING"
    AUTHORIZED = "AUTHORIZED"
    FAILED = "FAILED"
    CAPTURED = "CAPTURED"
    VOIDED = "VOIDED"
    PARTIALLY_REFUNDED = "PARTIALLY_REFUNDED"
    REFUNDED = "REFUNDED"


class RefundStatus(StrEnum):
    """The life of a refund."""

    PENDING = "PENDING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    """The provider has refused it too often. Nothing was given back, and it can be asked for again."""


class AttemptOutcome(StrEnum):
    """How a call of the payment provider ended."""

    APPROVED = "APPROVED"
    DECLINED = "DECLINED"
    CAPTURED = "CAPTURED"
    VOIDED = "VOIDED"
    REFUNDED = "REFUNDED"
    UNAVAILABLE = "UNAVAILABLE"
    """The provider did nothing, because it could not serve."""
    REFUSED = "REFUSED"
    """The provider did nothing, because the call contradicts an earlier one or is invalid."""
    UNKNOWN = "UNKNOWN"
    """The connection was lost, or there was no response within the deadline: the provider may have acted."""
    ERROR = "ERROR"
    """The call failed inside the payments service."""


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
    consumers: ClassVar[tuple[str, ...]] = ("orders", "notifications")

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
    consumers: ClassVar[tuple[str, ...]] = ("orders", "notifications")

    order_id: UUID
    payment_id: UUID
    amount: Money | None = None
    currency: Currency | None = None
    user_id: UUID | None = None


# Requests and views


def _more_than_zero(amount: Decimal) -> Decimal:
    if not amount:
        message = "must be more than 0.00"
        raise ValueError(message)
    return amount


PositiveMoney = Annotated[
    Money,
    AfterValidator(_more_than_zero),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^[0-9]{1,10}(\.[0-9]{1,2})?$",
            "not": {"pattern": r"^0+(\.0+)?$"},
            "examples": ["149.90"],
        }
    ),
]


class RefundPayment(NullIsAbsent):
    """The body of POST /payments/{payment_id}/refund. Without an amount, all that is left is refunded."""

    amount: PositiveMoney | None = None
    reason: Line


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
    refunded_amount: Money
    created_at: Instant
    updated_at: Instant


class ExportedPayment(PaymentView):
    """A payment with everything else that is kept about it, for its user."""

    payment_method: str


class RefundView(View):
    """A refund of a payment, in full or in part.

    `reason` and `requested_by` are those of the administrator who asked for it. Both are null if the order was
    cancelled. `requested_by` is null also if the operator asked.
    """

    id: UUID
    payment_id: UUID
    order_id: UUID
    amount: Money
    currency: str
    status: RefundStatus
    reason: str | None
    requested_by: UUID | None
    created_at: Instant
    completed_at: Instant | None


class AttemptView(View):
    """A call of the payment provider that has ended, also one that failed.

    `attempt` counts the attempts of an operation since it became due. If a number is missing, the process ended during
    that attempt. `detail` is the provider's reason or the error. `refund_id` is null unless an administrator asked for
    the refund.
    """

    operation: str
    attempt: int
    at: Instant
    duration_ms: int
    outcome: AttemptOutcome
    detail: str | None
    refund_id: UUID | None


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

    def export_payments(
        self, user_id: UUID, page: PageRequest, *, actor: Actor = OPERATOR
    ) -> Json[Page[ExportedPayment]]:
        """List all that is kept about a user's payments, newest first. Raises PermissionDenied for another user."""

    def refund_payment(
        self, payment_id: UUID, refund: RefundPayment, *, actor: Actor = OPERATOR, idempotency_key: str | None = None
    ) -> Json[RefundView]:
        """Give back a captured payment, or a part of it (admin). The provider is asked after the commit.

        Raises PaymentNotFound, and InvalidState if nothing is captured, or if more is asked for than is left.
        """

    def list_refunds(self, payment_id: UUID, page: PageRequest, *, actor: Actor = OPERATOR) -> Json[Page[RefundView]]:
        """List the refunds of a payment, newest first (admin). Raises PaymentNotFound."""

    def list_attempts(self, payment_id: UUID, page: PageRequest, *, actor: Actor = OPERATOR) -> Json[Page[AttemptView]]:
        """List the calls of the provider about a payment, newest first (admin). Raises PaymentNotFound."""

    def list_provider_calls(self, wanted: PageRequest, *, actor: Actor = OPERATOR) -> Json[Page[ProviderCallView]]:
        """List the calls of the payment provider that are not finished, newest payments first (admin)."""


class PaymentNotFound(NotFound):
    """The payment does not exist, or belongs to another user."""

    code, status, detail = "PAYMENT_NOT_FOUND", 404, "There is no such payment."
