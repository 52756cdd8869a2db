"""The tables of the orders service."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
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
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from contracts.orders import CancelReason, OrderStatus
from extensions.storage import deleted_users
from extensions.storage.tables import APPEND_ONLY, service_metadata
from orders import saga


def _values(statuses: Iterable[str]) -> str:
    return ", ".join(f"'{status}'" for status in statuses)


UNDECIDED = text(f"status = '{saga.UNDECIDED}'")
"""saga.UNDECIDED as SQL."""

# The parentheses are needed when the condition is combined with others by AND.
UNSETTLED = text(
    f"({UNDECIDED.text}"
    f" OR status = '{saga.CANCELLED}' AND (stock_status IN ({_values(saga.UNRELEASED_STOCK)})"
    f" OR payment_status IN ({_values(saga.UNRETURNED_PAYMENT)}))"
    f" OR status IN ({_values(saga.ACCEPTED)})"
    f" AND (stock_status <> '{saga.SETTLED_STOCK}' OR payment_status NOT IN ({_values(saga.SETTLED_PAYMENT)})))"
)
"""saga.is_unsettled as SQL."""


class Base(DeclarativeBase):
    """The tables of this service's database."""

    metadata = service_metadata()
    deleted_users = deleted_users.define(metadata)


class Order(Base):
    """An order. Cancel, confirmation, timeout and shipping each take its row lock; the first one wins."""

    __tablename__ = "orders"
    __table_args__ = (
        CheckConstraint(f"status IN ({_values(OrderStatus)})", name="status_known"),
        CheckConstraint(f"cancel_reason IN ({_values(CancelReason)})", name="cancel_reason_known"),
        CheckConstraint("(status = 'CANCELLED') = (cancel_reason IS NOT NULL)", name="cancelled_for_a_reason"),
        CheckConstraint("total_amount >= 0", name="total_not_negative"),
        Index(None, "user_id", "id"),
        Index(None, "status", "id"),
        Index(None, "created_at"),
        # For the deadline timer: a partial index stays small however many orders there are.
        Index("ix_orders_undecided", "deadline_at", postgresql_where=UNDECIDED),
        # For the operator's list of unsettled orders, which are few as well.
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
    payment_method: Mapped[str] = mapped_column(Text, server_default=text("'pm_ok'"))
    # Personal data: personal_data.py removes it when the account is deleted.
    shipping_address: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    carrier: Mapped[str | None] = mapped_column(Text)
    tracking_number: Mapped[str | None] = mapped_column(Text)
    # What the one who cancelled wrote. Personal data, too, so it is no part of the timeline, which never changes.
    cancel_note: Mapped[str | None] = mapped_column(Text)
    version: Mapped[int] = mapped_column(Integer)
    deadline_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())

    items: Mapped[list["OrderItem"]] = relationship(order_by="OrderItem.line", lazy="raise")


class OrderItem(Base):
    """One product of an order, at the price at which it was ordered."""

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
        """The price of the line."""
        return self.price_snapshot * self.quantity


class TimelineEvent(Base):
    """An event of an order's saga; never deleted. `id` increases in the order of recording, because
    the order's row is locked.
    """

    __tablename__ = "timeline"
    __table_args__ = (Index(None, "order_id", "id"), {"info": APPEND_ONLY})

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    order_id: Mapped[UUID] = mapped_column(ForeignKey("orders.id"))
    event: Mapped[str] = mapped_column(Text)
    event_id: Mapped[UUID] = mapped_column(Uuid, unique=True)
    service: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())
    data: Mapped[dict[str, Any]] = mapped_column(JSONB)


class ProductReplica(Base):
    """What pricing needs of a product, as catalog had it when `confirmed_at`. A higher version is never overwritten."""

    __tablename__ = "product_replicas"
    __table_args__ = (CheckConstraint("price >= 0", name="price_not_negative"),)

    id: Mapped[UUID] = mapped_column(Uuid, primary_key=True)
    sku: Mapped[str] = mapped_column(Text)
    price: Mapped[Decimal] = mapped_column(Numeric(12, 2))
    is_active: Mapped[bool] = mapped_column(Boolean)
    version: Mapped[int] = mapped_column(Integer)
    confirmed_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


# Statements that run for every order. tests/unit/orders/test_models.py compares their columns with the tables above.


@dataclass(slots=True)
class LockedOrder:
    """The columns of a locked Order that a decision needs: cheaper to load than the mapped object."""

    id: UUID
    user_id: UUID
    total_amount: Decimal
    currency: str
    status: str
    cancel_reason: str | None
    stock_status: str
    payment_status: str
    version: int


ORDER_STATE = select(*(getattr(Order, name) for name in LockedOrder.__slots__))
"""Selects the columns of LockedOrder, in its order."""

# Insert orders, their lines and their first timeline entries in one round trip.
# The deadline uses the database's clock, as the timer that checks it does.
PLACE_ORDERS = text(
    """
    WITH placed AS (
        INSERT INTO orders (id, user_id, total_amount, payment_method, shipping_address, status, currency, stock_status,
                            payment_status, version, deadline_at)
        SELECT id, user_id, total_amount, payment_method, shipping_address, :status, :currency, :stock_status,
               :payment_status, :version, clock_timestamp() + :deadline
        FROM unnest(CAST(:id AS uuid[]), CAST(:user_id AS uuid[]), CAST(:total_amount AS numeric[]),
                    CAST(:payment_method AS text[]), CAST(:shipping_address AS jsonb[]))
             AS asked (id, user_id, total_amount, payment_method, shipping_address)
        RETURNING id, created_at, updated_at
    ), lines AS (
        INSERT INTO order_items (order_id, line, product_id, product_sku, quantity, price_snapshot)
        SELECT * FROM unnest(CAST(:order_id AS uuid[]), CAST(:line AS integer[]), CAST(:product_id AS uuid[]),
                             CAST(:product_sku AS text[]), CAST(:quantity AS integer[]),
                             CAST(:price_snapshot AS numeric[]))
    ), noted AS (
        INSERT INTO timeline (order_id, event, event_id, service, data)
        SELECT order_id, :event, event_id, :service, data
        FROM unnest(CAST(:id AS uuid[]), CAST(:event_id AS uuid[]), CAST(:data AS jsonb[]))
             AS created (order_id, event_id, data)
    )
    SELECT id, created_at, updated_at FROM placed
    """
)

# Sorted, so that two instances of the service that store the same products wait for each other and do not deadlock.
REPLICATE_PRODUCTS = text(
    """
    INSERT INTO product_replicas AS kept (id, sku, price, is_active, version, confirmed_at)
    SELECT id, sku, price, is_active, version, clock_timestamp() - age
    FROM unnest(CAST(:id AS uuid[]), CAST(:sku AS text[]), CAST(:price AS numeric[]), CAST(:is_active AS boolean[]),
                CAST(:version AS integer[]), CAST(:age AS interval[]))
         AS confirmed (id, sku, price, is_active, version, age)
    ORDER BY id
    ON CONFLICT (id) DO UPDATE
    SET sku = EXCLUDED.sku, price = EXCLUDED.price, is_active = EXCLUDED.is_active, version = EXCLUDED.version,
        confirmed_at = EXCLUDED.confirmed_at
    WHERE (kept.version, kept.confirmed_at) < (EXCLUDED.version, EXCLUDED.confirmed_at)
    """
)
