"""The tables of the payments service."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Numeric,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from contracts.base import StoredCause
from contracts.ids import new_id
from contracts.payments import PaymentStatus, RefundStatus
from extensions.storage import deleted_users, work_items
from extensions.storage.collations import KEY_COLLATION
from extensions.storage.tables import DELETABLE, service_metadata
from payments.rules import State, state_of

STATUSES = (*PaymentStatus, State.CANCELLED_BEFORE)
REFUND_PENDING = text("refunded_amount < refund_requested_amount")
"""A refund was requested that the provider has not made yet."""


class Base(DeclarativeBase):
    """All tables of payments and of its messaging, its work items (calls of the provider, by payment id), and the users
    who have deleted their accounts.
    """

    metadata = service_metadata()
    work_items = work_items.define(metadata)
    deleted_users = deleted_users.define(metadata)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own way
        str: Text,
        UUID: Uuid,
        datetime: DateTime(timezone=True),
        Decimal: Numeric(12, 2),
    }


class Payment(Base):
    """The payment of an order, or a tombstone (CANCELLED_BEFORE, no amount) for an order whose cancellation came first.

    Both are in one table, so that its unique key allows only one of them.
    """

    __tablename__ = "payments"
    __table_args__ = (
        CheckConstraint(f"status IN ({', '.join(repr(str(status)) for status in STATUSES)})", name="status"),
        CheckConstraint("(status = 'CANCELLED_BEFORE') = (amount IS NULL)", name="tombstone_has_no_amount"),
        CheckConstraint("(amount IS NULL) = (currency IS NULL)", name="amount_has_a_currency"),
        CheckConstraint("amount >= 0", name="amount"),
        CheckConstraint(
            "0 <= refunded_amount AND refunded_amount <= refund_requested_amount"
            " AND refund_requested_amount <= coalesce(amount, 0)",
            name="refunds_within_amount",
        ),
        Index(None, "user_id", "id"),
        Index(None, "status", "id"),
        Index("ix_payments_refund_pending", "id", postgresql_where=REFUND_PENDING),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    order_id: Mapped[UUID] = mapped_column(unique=True)
    user_id: Mapped[UUID]
    amount: Mapped[Decimal | None]
    currency: Mapped[str | None]
    payment_method: Mapped[str] = mapped_column(server_default=text("'pm_ok'"))
    status: Mapped[str]
    # The order was confirmed or cancelled, and the outcome of the provider is not recorded yet (rules.STORED).
    capture_requested: Mapped[bool] = mapped_column(server_default=text("false"))
    cancel_requested: Mapped[bool] = mapped_column(server_default=text("false"))
    # The sums of the refunds that were requested, and of those that the provider has made.
    refund_requested_amount: Mapped[Decimal] = mapped_column(server_default=text("0"))
    refunded_amount: Mapped[Decimal] = mapped_column(server_default=text("0"))
    transaction_reference: Mapped[str | None]
    failure_reason: Mapped[str | None]
    # The message that opened the payment: the events about the provider's outcome name it as their cause.
    cause_message_id: Mapped[UUID]
    cause_request_id: Mapped[str]
    cause_traceparent: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())

    @property
    def cause(self) -> StoredCause:
        """The message that opened the payment."""
        return StoredCause(self.cause_message_id, self.cause_request_id, self.cause_traceparent)

    @property
    def state(self) -> State:
        """The state that rules.py works with."""
        return state_of(
            self.status,
            capture_requested=self.capture_requested,
            cancel_requested=self.cancel_requested,
            is_refund_pending=self.refunded_amount < self.refund_requested_amount,
        )


@dataclass(frozen=True, slots=True)
class RequestCause:
    """The request of an administrator, as the cause of the event about its refund."""

    request_id: str
    traceparent: str


class Refund(Base):
    """A refund of a payment. An administrator asked for it; or the order was cancelled, then it is the last one.

    It is inserted and changed under the lock of its payment, whose sums of refunds are changed with it. The refund
    after a cancellation is inserted when the provider has made it, because only then its amount is certain.
    """

    __tablename__ = "refunds"
    __table_args__ = (
        CheckConstraint(f"status IN ({', '.join(repr(str(status)) for status in RefundStatus)})", name="status"),
        CheckConstraint("(status = 'SUCCEEDED') = (completed_at IS NOT NULL)", name="completed_at"),
        CheckConstraint("amount >= 0", name="amount"),
        Index(None, "payment_id", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    payment_id: Mapped[UUID] = mapped_column(ForeignKey("payments.id"))
    amount: Mapped[Decimal]
    status: Mapped[str]
    reason: Mapped[str | None]
    requested_by: Mapped[UUID | None]
    # The idempotency key of its calls of the provider.
    provider_key: Mapped[str] = mapped_column(Text(collation=KEY_COLLATION), unique=True)
    provider_reference: Mapped[str | None]
    cause_request_id: Mapped[str]
    cause_traceparent: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    completed_at: Mapped[datetime | None]

    @property
    def cause(self) -> RequestCause:
        """The request that asked for it."""
        return RequestCause(self.cause_request_id, self.cause_traceparent)


class ProviderAttempt(Base):
    """A call of the provider that has ended. Of those that failed, the oldest are deleted (attempts.MAX_FAILED)."""

    __tablename__ = "provider_attempts"
    __table_args__ = (Index(None, "payment_id", "id"), {"info": DELETABLE})

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    # No foreign key: its check would wait for the lock of a payment.
    payment_id: Mapped[UUID]
    operation: Mapped[str]
    refund_id: Mapped[UUID | None]
    attempt: Mapped[int] = mapped_column(Integer)
    at: Mapped[datetime]
    duration_ms: Mapped[int] = mapped_column(Integer)
    outcome: Mapped[str]
    detail: Mapped[str | None]


# With arrays as parameters, the text of a statement is the same for any number of rows, so it is compiled once.
RECORD_REFUNDS = text(
    """
    INSERT INTO refunds (id, payment_id, amount, status, provider_key, provider_reference, cause_request_id,
                         cause_traceparent, completed_at)
    SELECT id, payment_id, amount, 'SUCCEEDED', provider_key, provider_reference, cause_request_id, cause_traceparent,
           clock_timestamp()
    FROM unnest(CAST(:id AS uuid[]), CAST(:payment_id AS uuid[]), CAST(:amount AS numeric[]),
                CAST(:provider_key AS text[]), CAST(:provider_reference AS text[]), CAST(:cause_request_id AS text[]),
                CAST(:cause_traceparent AS text[]))
         AS made (id, payment_id, amount, provider_key, provider_reference, cause_request_id, cause_traceparent)
    ON CONFLICT (provider_key) DO UPDATE
    SET status = excluded.status, provider_reference = excluded.provider_reference,
        completed_at = excluded.completed_at
    """
)
