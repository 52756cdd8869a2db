"""Tables of users: accounts, sessions and their refresh tokens, and the tokens of mails."""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import CheckConstraint, DateTime, ForeignKey, Index, LargeBinary, Text, func, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from contracts.ids import new_id
from contracts.users import Language
from extensions.storage.collations import KEY_COLLATION
from extensions.storage.tables import DELETABLE, service_metadata


class Base(DeclarativeBase):
    """All tables of users."""

    metadata = service_metadata()
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text,
        datetime: DateTime(timezone=True),
        bytes: LargeBinary,
        list[str]: ARRAY(Text),
    }


class Purpose(StrEnum):
    """What the token of a mail permits."""

    PASSWORD_RESET = "PASSWORD_RESET"
    EMAIL_VERIFICATION = "EMAIL_VERIFICATION"


def _values(kinds: Iterable[str]) -> str:
    return ", ".join(f"'{kind}'" for kind in kinds)


class User(Base):
    """An account. A deleted one keeps its id, and nothing that its user stated."""

    __tablename__ = "users"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    email: Mapped[str] = mapped_column(Text(collation=KEY_COLLATION))
    password_hash: Mapped[str]
    roles: Mapped[list[str]]
    is_active: Mapped[bool] = mapped_column(default=True)
    language: Mapped[str] = mapped_column(server_default=text(f"'{Language.ENGLISH}'"))
    email_verified_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.statement_timestamp())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.statement_timestamp())

    __table_args__ = (
        CheckConstraint("cardinality(roles) > 0 AND roles <@ ARRAY['customer', 'admin']", name="roles"),
        CheckConstraint(f"language IN ({_values(Language)})", name="language"),
        Index("uq_users_email", text("lower(email)"), unique=True),
        Index(None, "updated_at"),
    )

    @property
    def email_verified(self) -> bool:
        """Whether the user has proved to read the mail of the address."""
        return self.email_verified_at is not None


class RefreshFamily(Base):
    """One session: all refresh tokens since a login. Revoked as a whole; its row lock serialises the rotations."""

    __tablename__ = "refresh_families"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)
    revoked_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.statement_timestamp())

    __table_args__ = (
        Index(None, "revoked_at", postgresql_where=text("revoked_at IS NOT NULL")),
        # The foreign key's cascade deletes its tokens, so the service needs no DELETE on them.
        {"info": DELETABLE},
    )


class RefreshToken(Base):
    """One refresh token, as its SHA-256, with the data from which the access token beside it was made.

    With this data a repeated rotation returns the same pair, byte for byte (users/token_issuer.py).
    """

    __tablename__ = "refresh_tokens"

    fingerprint: Mapped[bytes] = mapped_column(primary_key=True)
    family_id: Mapped[UUID] = mapped_column(ForeignKey("refresh_families.id", ondelete="CASCADE"), index=True)
    access_token_id: Mapped[UUID] = mapped_column(default=new_id)
    access_roles: Mapped[list[str]]
    issued_at: Mapped[datetime]
    replaced_at: Mapped[datetime | None]
    successor_salt: Mapped[bytes | None]

    __table_args__ = (CheckConstraint("(replaced_at IS NULL) = (successor_salt IS NULL)", name="replaced_with_salt"),)


class MailedToken(Base):
    """A token that was sent by mail, as its SHA-256. It is deleted when it is used, and when it has expired."""

    __tablename__ = "mailed_tokens"

    fingerprint: Mapped[bytes] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    purpose: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.statement_timestamp())
    expires_at: Mapped[datetime] = mapped_column(index=True)

    __table_args__ = (
        CheckConstraint(f"purpose IN ({_values(Purpose)})", name="purpose"),
        Index(None, "user_id", "purpose"),
        {"info": DELETABLE},
    )


class PasswordResetRequest(Base):
    """A request for a password reset, until it is handled: then its address is looked up, and its row is deleted."""

    __tablename__ = "password_reset_requests"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    email: Mapped[str]
    request_id: Mapped[str]
    traceparent: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.statement_timestamp())

    __table_args__ = ({"info": DELETABLE},)
