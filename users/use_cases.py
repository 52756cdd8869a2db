"""What changes accounts and sessions.

Locks are taken in one order: the account, then a family of refresh tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from contracts.base import Actor, Publish
from contracts.users import (
    ACCESS_TOKEN_SECONDS,
    InvalidCredentials,
    InvalidToken,
    Role,
    SessionView,
    TokenRevoked,
    UserAlreadyExists,
    UserInactive,
    UserNotFound,
    UserRegistered,
    UserUpdated,
    UserView,
)
from extensions.ids import new_id
from users import queries, tokens
from users.models import RefreshFamily, RefreshToken, User

REPLAY_WINDOW = timedelta(seconds=10)
CLEAN_UP_ROWS = 500


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """What sessions are made with: the key that signs access tokens, and how long a login lasts."""

    key: tokens.SigningKey
    lifetime: timedelta


def register(
    session: Session,
    email: str,
    password_hash: str,
    policy: SessionPolicy,
    publish: Publish,
    idempotency_key: str | None = None,
) -> SessionView:
    """Open an account for a customer and log it in; raises UserAlreadyExists.

    With an idempotency key, `repeat_registration` can give the same answer again.
    """
    values = {
        "id": new_id(),
        "email": email,
        "password_hash": password_hash,
        "roles": [Role.CUSTOMER.value],
        "registration_key": None if idempotency_key is None else tokens.fingerprint(idempotency_key),
    }
    statement = insert(User).values(values).on_conflict_do_nothing(index_elements=[func.lower(User.email)])
    user = session.scalars(statement.returning(User)).one_or_none()
    if user is None:
        raise UserAlreadyExists
    publish(UserRegistered(user_id=user.id, email=user.email))
    is_repeatable = user.registration_key is not None
    return _open_session(
        session, user, policy, tokens.first_refresh_token(policy.key, user.id) if is_repeatable else None
    )


def repeat_registration(session: Session, user_id: UUID, policy: SessionPolicy) -> SessionView:
    """Return what `register` answered, byte for byte; neither the answer nor its tokens were stored.

    Raises UserAlreadyExists once that first session is over and forgotten.
    """
    refresh_token = tokens.first_refresh_token(policy.key, user_id)
    token = session.get(RefreshToken, tokens.fingerprint(refresh_token))
    user = session.get(User, user_id)
    if token is None or user is None:
        raise UserAlreadyExists
    answer = _issue(user, token, refresh_token, policy)
    as_it_was = {"roles": (Role.CUSTOMER,), "is_active": True, "updated_at": user.created_at}
    return answer.model_copy(update={"user": answer.user.model_copy(update=as_it_was)})


def log_in(session: Session, user_id: UUID, password_hash: str, policy: SessionPolicy) -> SessionView:
    """Start a session for a user whose password was found to match `password_hash`.

    Raises InvalidCredentials if it has changed in between, UserInactive for an account that is switched off.
    """
    user = queries.lock_user(session, user_id, shared=True)
    if user is None or user.password_hash != password_hash:
        raise InvalidCredentials
    if not user.is_active:
        raise UserInactive
    return _open_session(session, user, policy)


def refresh(session: Session, refresh_token: str, policy: SessionPolicy) -> SessionView | None:
    """Replace `refresh_token` by a new pair; within 10 s of the first time, answer with that same pair again.

    None: it was replaced longer ago, so one of two holders stole it, and the whole family is revoked now. The caller
    raises TokenRevoked *after* the commit. Raises InvalidToken, TokenRevoked or UserInactive where nothing is to keep.
    """
    found = queries.find_refresh_token(session, refresh_token)
    if found is None:
        raise InvalidToken
    family_id, user_id = found
    user = queries.lock_user(session, user_id, shared=True)
    family = session.get(RefreshFamily, family_id, with_for_update=True)
    now = queries.now(session)
    if user is None or family is None or family.expires_at <= now:
        raise InvalidToken
    if not user.is_active:
        raise UserInactive
    if family.revoked_at is not None:
        raise TokenRevoked
    # Read under the family's lock: two clients with the same token see one replacement.
    token = session.get_one(RefreshToken, tokens.fingerprint(refresh_token))
    if token.replaced_at is not None and now - token.replaced_at > REPLAY_WINDOW:
        family.revoked_at = now
        return None
    return _replacement(session, user, token, refresh_token, now, policy)


def log_out(session: Session, refresh_token: str, actor: Actor) -> None:
    """Revoke the family of `refresh_token`, once or again; raises InvalidToken for an unknown one or someone else's."""
    found = queries.find_refresh_token(session, refresh_token)
    if found is None:
        raise InvalidToken
    family_id, user_id = found
    if actor.user_id not in (None, user_id):
        raise InvalidToken
    _revoke(session, RefreshFamily.id == family_id)


def set_roles(session: Session, user_id: UUID, roles: Sequence[Role], publish: Publish) -> UserView:
    """Give the account exactly these roles; raises UserNotFound."""
    user = _lock(session, user_id)
    wanted = [role.value for role in Role if role in roles]
    if user.roles != wanted:
        user.roles = wanted
        _updated(session, user, publish)
    return UserView.model_validate(user)


def set_active(session: Session, user_id: UUID, is_active: bool, publish: Publish) -> UserView:
    """Switch the account on or off; off ends all its sessions. Raises UserNotFound."""
    user = _lock(session, user_id)
    if user.is_active != is_active:
        user.is_active = is_active
        _updated(session, user, publish)
    if not is_active:
        _revoke(session, RefreshFamily.user_id == user_id)
    return UserView.model_validate(user)


def delete_expired_sessions(session: Session) -> int:
    """Delete some of the families whose time is over, with their tokens, and return how many.

    Until then a used or revoked token is kept: it must be recognised.
    """
    expired = (
        select(RefreshFamily.id)
        .where(RefreshFamily.expires_at < func.clock_timestamp())
        .order_by(RefreshFamily.expires_at)
        .limit(CLEAN_UP_ROWS)
        .with_for_update(skip_locked=True)
    )
    families = session.scalars(expired).all()
    session.execute(delete(RefreshFamily).where(RefreshFamily.id.in_(families)))
    return len(families)


def _open_session(session: Session, user: User, policy: SessionPolicy, refresh_token: str | None = None) -> SessionView:
    now = queries.now(session)
    family = RefreshFamily(id=new_id(), user_id=user.id, created_at=now, expires_at=now + policy.lifetime)
    session.add(family)
    session.flush()
    refresh_token = refresh_token or tokens.new_refresh_token()
    return _issue(user, _add_token(session, family.id, refresh_token, user, now), refresh_token, policy)


def _replacement(
    session: Session, user: User, token: RefreshToken, refresh_token: str, now: datetime, policy: SessionPolicy
) -> SessionView:
    if token.successor_salt is not None:
        successor = tokens.successor(refresh_token, token.successor_salt)
        return _issue(user, session.get_one(RefreshToken, tokens.fingerprint(successor)), successor, policy)
    token.replaced_at, token.successor_salt = now, tokens.new_salt()
    successor = tokens.successor(refresh_token, token.successor_salt)
    return _issue(user, _add_token(session, token.family_id, successor, user, now), successor, policy)


def _add_token(session: Session, family_id: UUID, refresh_token: str, user: User, now: datetime) -> RefreshToken:
    token = RefreshToken(
        fingerprint=tokens.fingerprint(refresh_token),
        family_id=family_id,
        access_token_id=new_id(),
        access_roles=user.roles,
        issued_at=now,
    )
    session.add(token)
    return token


def _issue(user: User, token: RefreshToken, refresh_token: str, policy: SessionPolicy) -> SessionView:
    access_token = tokens.issue(
        policy.key,
        user_id=user.id,
        roles=token.access_roles,
        issued_at=token.issued_at,
        token_id=token.access_token_id,
    )
    return SessionView(
        user=UserView.model_validate(user),
        access_token=access_token,
        refresh_token=refresh_token,
        expires_in=ACCESS_TOKEN_SECONDS,
    )


def _lock(session: Session, user_id: UUID) -> User:
    user = queries.lock_user(session, user_id)
    if user is None:
        raise UserNotFound
    return user


def _updated(session: Session, user: User, publish: Publish) -> None:
    user.updated_at = queries.now(session)
    event = {"user_id": user.id, "roles": user.roles, "is_active": user.is_active, "at": user.updated_at}
    publish(UserUpdated.model_validate(event))


def _revoke(session: Session, which: ColumnElement[bool]) -> None:
    statement = update(RefreshFamily).where(which, RefreshFamily.revoked_at.is_(None))
    session.execute(statement.values(revoked_at=func.clock_timestamp()))
