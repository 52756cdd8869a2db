"""The tokens of mails: each proves once, for a short time, that its holder reads the mail of an account.

A token has 256 random bits. It is published in one event and stored as its SHA-256.
"""

import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Delete, any_, delete, func, literal_column, select
from sqlalchemy.orm import Session

from contracts.base import Cause, Publish
from contracts.users import (
    EMAIL_VERIFICATION_LIFETIME,
    PASSWORD_RESET_LIFETIME,
    Language,
    UserEmailVerificationRequested,
    UserPasswordResetRequested,
)
from users import queries
from users.models import MailedToken, Purpose, User
from users.token_issuer import fingerprint

LIFETIMES: Mapping[Purpose, timedelta] = {
    Purpose.PASSWORD_RESET: PASSWORD_RESET_LIFETIME,
    Purpose.EMAIL_VERIFICATION: EMAIL_VERIFICATION_LIFETIME,
}
EVENTS: Mapping[Purpose, type[UserPasswordResetRequested | UserEmailVerificationRequested]] = {
    Purpose.PASSWORD_RESET: UserPasswordResetRequested,
    Purpose.EMAIL_VERIFICATION: UserEmailVerificationRequested,
}
MAX_OPEN = 5
"""Unused tokens of an account for one purpose. It bounds the mails that others can cause, too. The earlier tokens stay
valid: whoever asks for resets of someone else could otherwise make the mail of the owner useless."""


def send(session: Session, user: User, purpose: Purpose, publish: Publish, cause: Cause | None = None) -> bool:
    """Publish a new token for an account that this transaction has locked or created.

    Returns False, and publishes nothing, if the account has MAX_OPEN of them.
    """
    now = queries.now(session)
    if len(_expiries(session, user.id, purpose, now)) >= MAX_OPEN:
        return False
    token, expires_at = secrets.token_urlsafe(32), now + LIFETIMES[purpose]
    session.add(
        MailedToken(
            fingerprint=fingerprint(token), user_id=user.id, purpose=purpose, created_at=now, expires_at=expires_at
        )
    )
    session.flush()
    event = EVENTS[purpose](
        user_id=user.id, email=user.email, token=token, expires_at=expires_at, language=Language(user.language)
    )
    publish(event, cause)
    return True


def seconds_until_next(session: Session, user_id: UUID, purpose: Purpose) -> int:
    """Return in how many seconds the first of the unused tokens expires; at least 1."""
    now = queries.now(session)
    first = min(_expiries(session, user_id, purpose, now), default=now)
    return max(1, int((first - now).total_seconds()) + 1)


def owner_of(session: Session, token: str, purpose: Purpose) -> UUID | None:
    """Return the account of a token that can be used, None if there is none. Locks nothing."""
    statement = select(MailedToken.user_id).where(
        MailedToken.fingerprint == fingerprint(token),
        MailedToken.purpose == purpose,
        MailedToken.expires_at > func.clock_timestamp(),
    )
    return session.scalars(statement).one_or_none()


def use(session: Session, token: str, user_id: UUID, purpose: Purpose) -> bool:
    """Delete all tokens of a locked account for this purpose, if `token` is one of them and has not expired."""
    if owner_of(session, token, purpose) != user_id:
        return False
    delete_all(session, user_id, purpose)
    return True


def delete_all(session: Session, user_id: UUID, *purposes: Purpose) -> None:
    """Delete the tokens of an account for these purposes."""
    mine = MailedToken.user_id == user_id, MailedToken.purpose.in_(purposes)
    session.execute(delete(MailedToken).where(*mine).execution_options(synchronize_session=False))


def delete_expired(batch: int) -> Delete:
    """Return the statement that deletes expired tokens, at most `batch`, without those that are locked."""
    # As in extensions/storage/retention.py: neither query reads the rows that are kept.
    position: ColumnElement[Any] = literal_column("ctid")
    expired = select(position).select_from(MailedToken).where(MailedToken.expires_at < func.statement_timestamp())
    chosen = expired.limit(batch).with_for_update(skip_locked=True).scalar_subquery()
    statement = delete(MailedToken).where(position == any_(func.array(chosen)))
    return statement.execution_options(synchronize_session=False)


def _expiries(session: Session, user_id: UUID, purpose: Purpose, now: datetime) -> list[datetime]:
    """Return when each unused token expires."""
    mine = MailedToken.user_id == user_id, MailedToken.purpose == purpose, MailedToken.expires_at > now
    return list(session.scalars(select(MailedToken.expires_at).where(*mine)))
