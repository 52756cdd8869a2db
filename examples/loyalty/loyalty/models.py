"""The table of the loyalty service."""

from uuid import UUID

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from extensions.storage.tables import service_metadata


class Base(DeclarativeBase):
    """The table of loyalty, and those of its messaging."""

    metadata = service_metadata()


class Award(Base):
    """The points of one order. A cancelled order has 0, also if its cancellation arrived first."""

    __tablename__ = "awards"

    order_id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(index=True)
    points: Mapped[int]
