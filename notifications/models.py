"""The tables of the notifications service."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, Index, Text, UniqueConstraint, Uuid, func, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from contracts.ids import new_id
from extensions.storage.collations import KEY_COLLATION
from extensions.storage.tables import service_metadata


class Base(DeclarativeBase):
    """All tables of notifications, and those of its messaging."""

    metadata = service_metadata()
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own way
        str: Text,
        UUID: Uuid,
        datetime: DateTime(timezone=True),
    }


class Notification(Base):
    """One message to one user."""

    __tablename__ = "notifications"
    __table_args__ = (
        # Each kind of event happens once to an order or an account, so duplicates of an event add no notification.
        UniqueConstraint("about_id", "kind"),
        Index(None, "user_id", "id"),
        Index("ix_notifications_stream", "user_id", "xact", "id", postgresql_where=text("xact IS NOT NULL")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    user_id: Mapped[UUID]
    # The order; for a notification about the account, the user.
    about_id: Mapped[UUID]
    order_id: Mapped[UUID | None]
    # The name of the event.
    kind: Mapped[str] = mapped_column(Text(collation=KEY_COLLATION))
    subject: Mapped[str]
    body: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    read_at: Mapped[datetime | None]
    # The transaction that wrote it, for stream_queries.py. Notifications of earlier versions have none.
    xact: Mapped[int | None] = mapped_column(BigInteger, server_default=text("(pg_current_xact_id()::text)::bigint"))

    @property
    def channel(self) -> Literal["IN_APP"]:
        """How it reaches the user."""
        return "IN_APP"

    @property
    def status(self) -> Literal["SENT", "READ"]:
        """Whether the user has read it."""
        return "SENT" if self.read_at is None else "READ"
