"""Tables of users: accounts, sessions and their refresh tokens."""

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import CheckConstraint, DateTime, ForeignKey, Index, LargeBinary, Text, func, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from contracts.ids import new_id
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


class User(Base):
    """An account."""

    __tablename__ = "users"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    email: Mapped[str] = mapped_column(Text(collation=KEY_COLLATION))
    password_hash: Mapped[str]
    roles: Mapped[list[str]]
    is_active: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.statement_timestamp())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.statement_timestamp())

    __table_args__ = (
        CheckConstraint("cardinality(roles) > 0 AND roles <@ ARRAY['customer', 'admin']", name="roles"),
        Index("uq_users_email", text("lower(email)"), unique=True),
        Index(None, "updated_at"),
    )


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
