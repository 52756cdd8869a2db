"""The tables of orders."""

from datetime import datetime
from decimal import Decimal
from typing import Any
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
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from contracts.orders import CancelReason, OrderStatus
from extensions.storage.tables import APPEND_ONLY, service_metadata

_STATUSES = ", ".join(f"'{status}'" for status in OrderStatus)
_REASONS = ", ".join(f"'{reason}'" for reason in CancelReason)

# saga.is_stuck as SQL, in parentheses of its own: it stands beside other conditions.
UNSETTLED = text(
    "(status = 'CREATED'"
    " OR status = 'CANCELLED' AND (stock_status IN ('RESERVED', 'COMMITTED')"
    " OR payment_status IN ('AUTHORIZED', 'CAPTURED'))"
    " OR status IN ('CONFIRMED', 'SHIPPED', 'DELIVERED')"
    " AND (stock_status <> 'COMMITTED' OR payment_status <> 'CAPTURED'))"
)


class Base(DeclarativeBase):
    """The tables of this service's database."""

    metadata = service_metadata()


class Order(Base):
    """An order. Its row lock is what cancel, confirmation, timeout and shipping race for."""

    __tablename__ = "orders"
    __table_args__ = (
        CheckConstraint(f"status IN ({_STATUSES})", name="status_known"),
        CheckConstraint(f"cancel_reason IN ({_REASONS})", name="cancel_reason_known"),
        CheckConstraint("(status = 'CANCELLED') = (cancel_reason IS NOT NULL)", name="cancelled_for_a_reason"),
        CheckConstraint("total_amount >= 0", name="total_not_negative"),
        Index(None, "user_id", "id"),
        Index(None, "status", "id"),
        Index(None, "created_at"),
        # The deadline timer looks at undecided orders only, which are few however many orders there are.
        Index("ix_orders_undecided", "deadline_at", postgresql_where=text("status = 'CREATED'")),
        # The operator's list of orders to which somebody owes something: few again.
        Index("ix_orders_unsettled", "id", postgresql_where=UNSETTLED),
    )

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    user_id: Mapped[UUID] = mapped_column(Uuid)
    status: Mapped[str] = mapped_column(Text)
    cancel_reason: Mapped[str | None] = mapped_column(Text)
    total_amount: Mapped[Decimal] = mapped_column(Numeric(12, 2))
    currency: Mapped[str] = mapped_column(Text)
    stock_status: Mapped[str] = mapped_column(Text)
    payment_status: Mapped[str] = mapped_column(Text)
    version: Mapped[int] = mapped_column(Integer)
    deadline_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())

    items: Mapped[list["OrderItem"]] = relationship(order_by="OrderItem.line", lazy="raise")


class OrderItem(Base):
    """One product of an order, at the price of the moment it was ordered."""

    __tablename__ = "order_items"
    __table_args__ = (
        CheckConstraint("quantity > 0", name="quantity_positive"),
        CheckConstraint("price_snapshot >= 0", name="price_not_negative"),
        {"info": APPEND_ONLY},
    )

    order_id: Mapped[UUID] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    line: Mapped[int] = mapped_column(Integer, primary_key=True)
    product_id: Mapped[UUID] = mapped_column(Uuid)
    product_sku: Mapped[str] = mapped_column(Text)
    quantity: Mapped[int] = mapped_column(Integer)
    price_snapshot: Mapped[Decimal] = mapped_column(Numeric(12, 2))

    @property
    def line_total(self) -> Decimal:
        """What the line costs."""
        return self.price_snapshot * self.quantity


class TimelineEvent(Base):
    """An event of an order's saga, for ever. `id` is the order of recording, which happens under the order's lock."""

    __tablename__ = "timeline"
    __table_args__ = (Index(None, "order_id", "id"), {"info": APPEND_ONLY})

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    order_id: Mapped[UUID] = mapped_column(ForeignKey("orders.id"))
    event: Mapped[str] = mapped_column(Text)
    event_id: Mapped[UUID] = mapped_column(Uuid, unique=True)
    service: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())
    data: Mapped[dict[str, Any]] = mapped_column(JSONB)
