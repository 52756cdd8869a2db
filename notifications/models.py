"""The tables of the notifications service."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    DateTime,
    Index,
    Integer,
    Text,
    UniqueConstraint,
    Uuid,
    false,
    func,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from contracts.ids import new_id
from contracts.webhooks import DeliveryState, DisabledReason, Scope
from extensions.storage import work_items
from extensions.storage.collations import KEY_COLLATION
from extensions.storage.tables import DELETABLE, service_metadata


def _one_of(column: str, values: Iterable[str]) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


class Base(DeclarativeBase):
    """All tables of notifications, those of its messaging, and its work items: endpoints with deliveries to make."""

    metadata = service_metadata()
    work_items = work_items.define(metadata)
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
    # False: the user wants no such messages in the list. The row stays, because the consistency check counts it.
    in_app: Mapped[bool] = mapped_column(server_default=true())
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


class Recipient(Base):
    """What notifications knows of a user: a replica of what users publishes, and the user's own preferences."""

    __tablename__ = "recipients"
    __table_args__ = (Index(None, "user_id", postgresql_where=text("is_admin")),)

    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    email: Mapped[str | None]
    # NULL: not known.
    language: Mapped[str | None]
    is_admin: Mapped[bool] = mapped_column(server_default=false())
    # The `at` of the last user.updated that was applied: an older one changes nothing.
    changed_at: Mapped[datetime | None]
    # {kind: {channel: bool}}, only what the user has set.
    preferences: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'"))
    # The account was deleted: nothing is stored about it any more.
    deleted_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class Webhook(Base):
    """An endpoint of a user."""

    __tablename__ = "webhooks"
    __table_args__ = (
        CheckConstraint(_one_of("scope", Scope), name="scope"),
        CheckConstraint(_one_of("disabled_reason", DisabledReason), name="disabled_reason"),
        Index(None, "user_id", "id"),
        Index(None, "scope", "id"),
        {"info": DELETABLE},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    user_id: Mapped[UUID]
    url: Mapped[str]
    events: Mapped[list[str]] = mapped_column(ARRAY(Text))
    scope: Mapped[str]
    secret: Mapped[str]
    # The secret before the last rotation, and until when deliveries are signed with it too.
    old_secret: Mapped[str | None]
    old_secret_expires_at: Mapped[datetime | None]
    disabled_reason: Mapped[str | None]
    # The first of the failures after the last success, and their number.
    failing_since: Mapped[datetime | None]
    failures: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    # Nothing is sent before.
    paused_until: Mapped[datetime | None]
    # Until then it has not shown that it responds promptly: it is new, or it was slow lately.
    slow_until: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())

    @property
    def is_enabled(self) -> bool:
        """Whether deliveries are made."""
        return self.disabled_reason is None


class WebhookEvent(Base):
    """An event that endpoints receive, in the form in which it is sent. Stored only while its user has an endpoint."""

    __tablename__ = "webhook_events"
    __table_args__ = (Index(None, "user_id", "occurred_at"), Index(None, "occurred_at"), {"info": DELETABLE})

    # The id of the message, which is the header webhook-id.
    id: Mapped[UUID] = mapped_column(primary_key=True)
    # The customer; NULL for an event about the shop.
    user_id: Mapped[UUID | None]
    event_type: Mapped[str]
    body: Mapped[str]
    occurred_at: Mapped[datetime]


class WebhookDelivery(Base):
    """An event for one endpoint, with its latest attempt."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        CheckConstraint(_one_of("state", DeliveryState), name="state"),
        UniqueConstraint("webhook_id", "event_id"),
        Index(None, "webhook_id", "id"),
        Index(None, "webhook_id", "state", "id"),
        Index("ix_webhook_deliveries_due", "webhook_id", "next_attempt_at", postgresql_where=text("state = 'PENDING'")),
        Index(None, "occurred_at"),
        {"info": DELETABLE},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    webhook_id: Mapped[UUID]
    event_id: Mapped[UUID]
    event_type: Mapped[str]
    occurred_at: Mapped[datetime]
    state: Mapped[str] = mapped_column(Text(collation=KEY_COLLATION), server_default=text("'PENDING'"))
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    next_attempt_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    last_attempt_at: Mapped[datetime | None]
    response_status: Mapped[int | None] = mapped_column(Integer)
    response_body: Mapped[str | None]
    duration_ms: Mapped[int | None] = mapped_column(Integer)
    error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class Mail(Base):
    """A mail to a user. What is personal in it is removed when it is sent, or given up."""

    __tablename__ = "mails"
    __table_args__ = (
        CheckConstraint("state IN ('PENDING', 'SENT', 'FAILED')", name="state"),
        Index(None, "user_id"),
        Index(None, "created_at"),
        {"info": DELETABLE},
    )

    # Derived from what it is about and its kind. It is a part of the Message-ID.
    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID]
    kind: Mapped[str]
    # NULL: not known yet, or removed.
    recipient: Mapped[str | None]
    language: Mapped[str | None]
    fields: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    state: Mapped[str] = mapped_column(server_default=text("'PENDING'"))
    # Attempts that have begun, and of which no result is recorded.
    unsettled: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    error: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    sent_at: Mapped[datetime | None]
