"""The tables of the inventory service."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, DateTime, ForeignKey, Identity, Index, Text, Uuid, func, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from contracts.ids import new_id
from extensions.storage.import_tables import add_import_tables
from extensions.storage.tables import APPEND_ONLY, service_metadata
from inventory.rules import Status


class Base(DeclarativeBase):
    """All tables of inventory, and those of its messaging."""

    metadata = service_metadata()
    add_import_tables(metadata)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own way
        str: Text,
        int: BigInteger,
        UUID: Uuid,
        datetime: DateTime(timezone=True),
    }


class Stock(Base):
    """The stock of one product. `on_hand` includes what is reserved. The sku is that of the product's replica."""

    __tablename__ = "stock"
    __table_args__ = (
        CheckConstraint("0 <= reserved AND reserved <= on_hand", name="reserved_within_on_hand"),
        CheckConstraint("low_stock >= 0", name="low_stock"),
        Index(None, "created_at", "product_id"),
    )

    product_id: Mapped[UUID] = mapped_column(primary_key=True)
    product_sku: Mapped[str]
    on_hand: Mapped[int]
    reserved: Mapped[int] = mapped_column(server_default="0")
    low_stock: Mapped[int | None]
    # Fewer units than low_stock are available, and inventory.stock_low was published.
    is_low: Mapped[bool] = mapped_column(server_default=text("false"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())

    @property
    def available(self) -> int:
        """Units that can still be reserved."""
        return self.on_hand - self.reserved


class ProductReplica(Base):
    """The sku of a product, as catalog had it in this version. A higher version is never overwritten."""

    __tablename__ = "product_replicas"
    __table_args__ = (Index("ix_product_replicas_sku", text("lower(sku)")),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    sku: Mapped[str]
    version: Mapped[int]


class Reservation(Base):
    """The stock reservation of an order, or its tombstone: one row for each order."""

    __tablename__ = "reservations"
    __table_args__ = (
        CheckConstraint(f"status IN ({', '.join(repr(str(status)) for status in Status)})", name="status"),
    )

    order_id: Mapped[UUID] = mapped_column(primary_key=True)
    status: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class ReservationLine(Base):
    """How many units of a product a reservation took. A reservation that failed has no lines."""

    __tablename__ = "reservation_lines"
    __table_args__ = (CheckConstraint("quantity > 0", name="quantity"), {"info": APPEND_ONLY})

    order_id: Mapped[UUID] = mapped_column(ForeignKey("reservations.order_id"), primary_key=True)
    product_id: Mapped[UUID] = mapped_column(primary_key=True)
    quantity: Mapped[int]


class Movement(Base):
    """One entry of the stock ledger, never changed: the change, its cause, and the balance after it.

    The sum of a product's `on_hand_delta` is its `on_hand`; the sum of its `reserved_delta` is its `reserved`.
    """

    __tablename__ = "movements"
    __table_args__ = (Index(None, "product_id", "entry"), {"info": APPEND_ONLY})

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    # Entries are written under the lock of the stock row, so this numbers a product's entries in order. Ids do not:
    # they depend on the clocks of several processes.
    entry: Mapped[int] = mapped_column(Identity(always=True))
    product_id: Mapped[UUID]
    kind: Mapped[str]
    on_hand_delta: Mapped[int]
    reserved_delta: Mapped[int]
    on_hand: Mapped[int]
    reserved: Mapped[int]
    order_id: Mapped[UUID | None]
    reason: Mapped[str | None]
    actor_id: Mapped[UUID | None]
    event_id: Mapped[UUID | None]
    request_id: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
