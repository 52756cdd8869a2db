"""The tables of the payments service."""

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import CheckConstraint, DateTime, Index, Numeric, Text, Uuid, func, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from contracts.base import StoredCause
from contracts.ids import new_id
from contracts.payments import PaymentStatus
from extensions.storage import deleted_users, work_items
from extensions.storage.tables import service_metadata
from payments.rules import State, state_of

STATUSES = (*PaymentStatus, State.CANCELLED_BEFORE)


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
        Index(None, "user_id", "id"),
        Index(None, "status", "id"),
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
        return state_of(self.status, capture_requested=self.capture_requested, cancel_requested=self.cancel_requested)
