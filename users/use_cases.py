"""The use cases of the users service: they change accounts and sessions.

Locks are taken in one order: the account, then a family of refresh tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from contracts.base import Actor, Publish
from contracts.errors import InvalidState, ValidationFailed
from contracts.etags import require_match
from contracts.ids import new_id
from contracts.users import (
    ACCESS_TOKEN_SECONDS,
    AlreadyCompleted,
    InvalidCredentials,
    InvalidToken,
    Language,
    NotARefreshToken,
    Role,
    SessionView,
    TokenRevoked,
    UpdateUser,
    UserAlreadyExists,
    UserInactive,
    UserNotFound,
    UserRegistered,
    UserView,
)
from extensions.security.access_tokens import PublicKeys
from users import mailed_tokens, queries, token_issuer
from users.models import Purpose, RefreshFamily, RefreshToken, User

REPLAY_WINDOW = timedelta(seconds=10)
CLEAN_UP_ROWS = 500
MAX_ENDED = 5_000


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """The keys that sign and verify access tokens, and the lifetime of a session."""

    signing_keys: tuple[token_issuer.SigningKey, ...]
    """The first one signs. Retired keys reproduce the tokens that they signed, for retries."""
    public_keys: PublicKeys
    lifetime: timedelta

    @property
    def key(self) -> token_issuer.SigningKey:
        """The key that signs."""
        return self.signing_keys[0]


def register(
    session: Session,
    email: str,
    password_hash: str,
    policy: SessionPolicy,
    publish: Publish,
    *,
    language: Language = Language.ENGLISH,
    refresh_token: str | None = None,
) -> SessionView:
    """Create a customer's account and its first session, and send it a mail to verify the address.

    Raises UserAlreadyExists.

    A caller that can compute `refresh_token` again can have the same result again, by `repeat_registration`.
    """
    values = {
        "id": new_id(),
        "email": email,
        "password_hash": password_hash,
        "roles": [Role.CUSTOMER.value],
        "language": language.value,
    }
    statement = insert(User).values(values).on_conflict_do_nothing(index_elements=[func.lower(User.email)])
    user = session.scalars(statement.returning(User)).one_or_none()
    if user is None:
        raise UserAlreadyExists
    publish(UserRegistered(user_id=user.id, email=user.email, language=language))
    mailed_tokens.send(session, user, Purpose.EMAIL_VERIFICATION, publish)
    return _open_session(session, user, policy, refresh_token)


def repeat_registration(
    session: Session, refresh_token: str, kid: str, policy: SessionPolicy, language: Language = Language.ENGLISH
) -> SessionView:
    """Return the result of `register` again, byte for byte while the key `kid`, which signed it, is still there.

    Neither the result nor its tokens are stored. Raises AlreadyCompleted if that first session has ended, or if its
    refresh token was replaced: whoever uses a replaced token ends the session of whoever has its successor.
    """
    token = session.get(RefreshToken, token_issuer.fingerprint(refresh_token))
    family = session.get(RefreshFamily, token.family_id) if token else None
    user = session.get(User, family.user_id) if family else None
    if user is None or family is None or token is None or token.replaced_at is not None:
        raise AlreadyCompleted
    if family.revoked_at is not None or family.expires_at <= queries.now(session):
        raise AlreadyCompleted
    key = next((key for key in policy.signing_keys if key.kid == kid), policy.key)
    result = _issue(user, token, refresh_token, key)
    original = {
        "roles": (Role.CUSTOMER,),
        "is_active": True,
        "email_verified": False,
        "language": language,
        "updated_at": user.created_at,
    }
    return result.model_copy(update={"user": result.user.model_copy(update=original)})


def log_in(
    session: Session, user_id: UUID, password_hash: str, policy: SessionPolicy, renewed: str | None = None
) -> SessionView | None:
    """Start a session for a user whose password matched `password_hash`, and store the `renewed` hash if given.

    Returns None if the stored hash has changed in the meantime. Raises InvalidCredentials for a deleted account,
    UserInactive for an inactive one.
    """
    user = queries.lock_user(session, user_id, shared=renewed is None)
    if user is None:
        raise InvalidCredentials
    if user.password_hash != password_hash:
        return None
    if not user.is_active:
        raise UserInactive
    user.password_hash = renewed or password_hash
    return _open_session(session, user, policy)


def refresh(session: Session, refresh_token: str, policy: SessionPolicy, publish: Publish) -> SessionView | None:
    """Replace `refresh_token` by a new pair; a retry within REPLAY_WINDOW returns the same pair again.

    Returns None if the token was replaced earlier than that: it was probably stolen, so the whole family is revoked,
    and the caller raises TokenRevoked *after* the commit. Raises InvalidToken, TokenRevoked or UserInactive, with
    nothing to commit.
    """
    family_id, user_id = _owner_of(session, refresh_token)
    user = queries.lock_user(session, user_id, shared=True)
    family = session.get(RefreshFamily, family_id, with_for_update=True)
    now = queries.now(session)
    if user is None or family is None or family.expires_at <= now or user.deleted_at is not None:
        raise InvalidToken
    if not user.is_active:
        raise UserInactive
    if family.revoked_at is not None:
        raise TokenRevoked
    # Read under the family's lock, so that two clients with the same token get the same replacement.
    token = session.get_one(RefreshToken, token_issuer.fingerprint(refresh_token))
    if token.replaced_at is not None and now - token.replaced_at > REPLAY_WINDOW:
        _end_session(session, user, family, publish)
        return None
    return _replacement(session, user, token, refresh_token, now, policy)


def log_out(session: Session, refresh_token: str, actor: Actor, publish: Publish) -> None:
    """Revoke the family of `refresh_token`; repeating it is allowed. InvalidToken if unknown or another user's."""
    family_id, user_id = _owner_of(session, refresh_token)
    if actor.user_id not in (None, user_id):
        raise InvalidToken
    user = queries.lock_user(session, user_id, shared=True)
    family = session.get(RefreshFamily, family_id, with_for_update=True)
    if user is not None and family is not None:
        _end_session(session, user, family, publish)


def update_user(
    session: Session, user_id: UUID, change: UpdateUser, publish: Publish, if_match: Sequence[str] | None = None
) -> UserView:
    """Change the stated fields; deactivating an account ends its sessions.

    Raises ValidationFailed if no field is stated, UserNotFound, PreconditionFailed if `if_match` lacks the account's
    entity tag, InvalidState for the last active administrator.
    """
    if not change.model_fields_set:
        raise ValidationFailed.field("", "state roles, is_active or both")
    user = lock_account(session, user_id)
    require_match(UserView.model_validate(user), if_match)
    roles, is_active = user.roles, user.is_active
    if "roles" in change.model_fields_set:
        roles = [role.value for role in Role if role in change.roles]
    if "is_active" in change.model_fields_set:
        is_active = change.is_active
    # Their access tokens stay revoked when the account is activated again.
    ended = [] if is_active else revoke_sessions(session, user_id)
    if (roles, is_active) != (user.roles, user.is_active):
        if not (is_active and Role.ADMIN in roles):
            require_another_admin(session, user)
        user.roles, user.is_active = roles, is_active
        record_change(session, user, publish, ended)
    return UserView.model_validate(user)


def lock_expired_sessions(
    session: Session, *, only: Sequence[UUID] | None = None, without: Sequence[UUID] = ()
) -> Sequence[Any]:
    """Lock and return expired families, at most CLEAN_UP_ROWS; those that another transaction has locked are left out.

    Used and revoked tokens are kept until then, because they must be recognised.
    """
    # statement_timestamp() is constant during the statement, so the index can be used.
    expired = select(RefreshFamily.id).where(RefreshFamily.expires_at < func.statement_timestamp())
    if only is not None:
        expired = expired.where(RefreshFamily.id.in_(only))
    if without:
        expired = expired.where(RefreshFamily.id.not_in(without))
    oldest = expired.order_by(RefreshFamily.expires_at).limit(CLEAN_UP_ROWS)
    return session.execute(oldest.with_for_update(skip_locked=True)).all()


def delete_expired_sessions(session: Session, expired: Sequence[Any]) -> None:
    """Delete families that `lock_expired_sessions` returned, with their tokens."""
    session.execute(delete(RefreshFamily).where(RefreshFamily.id.in_([family.id for family in expired])))


def switch_off(session: Session, user: User) -> None:
    """Deactivate an account and end its sessions, without regard to whether it is the last administrator.

    Publishes nothing, as `end_sessions`.
    """
    revoke_sessions(session, user.id)
    user.is_active, user.updated_at = False, queries.now(session)


def end_sessions(session: Session, started_before: datetime) -> int:
    """Revoke at most MAX_ENDED sessions of all accounts that started before then; returns their number.

    Publishes nothing: gateways ask for the sessions that ended (`queries.list_changed`).
    """
    open_ones = select(RefreshFamily.id).where(
        RefreshFamily.revoked_at.is_(None), RefreshFamily.created_at < started_before
    )
    chosen = open_ones.order_by(RefreshFamily.id).limit(MAX_ENDED).with_for_update()
    ended = update(RefreshFamily).where(RefreshFamily.id.in_(chosen)).values(revoked_at=func.clock_timestamp())
    return len(session.scalars(ended.returning(RefreshFamily.id)).all())


def lock_account(session: Session, user_id: UUID) -> User:
    """Lock and return an account. Raises UserNotFound, also for a deleted one."""
    user = queries.lock_user(session, user_id)
    if user is None or user.deleted_at is not None:
        raise UserNotFound
    return user


def require_another_admin(session: Session, user: User) -> None:
    """Raise InvalidState if this account, locked and not yet changed, is the only active administrator."""
    if not user.is_active or Role.ADMIN not in user.roles:
        return
    # Two administrators who demote each other at the same time lock different accounts; this lock serialises them.
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended("the last administrator", 0))))
    others = select(User.id).where(User.is_active, User.roles.contains([Role.ADMIN.value]), User.id != user.id)
    if session.scalars(others.limit(1)).first() is None:
        raise InvalidState("This is the last active administrator. Make another user an administrator first.")


def record_change(session: Session, user: User, publish: Publish, ended: Sequence[UUID] = ()) -> None:
    """Publish the new state of a locked account, with the sessions that have ended."""
    user.updated_at = queries.now(session)
    publish(queries.describe_change(user, user.updated_at, ended))


def revoke_sessions(session: Session, user_id: UUID, kept: UUID | None = None) -> list[UUID]:
    """Revoke all sessions of an account except `kept`, and return those with an unexpired access token."""
    statement = update(RefreshFamily).where(RefreshFamily.user_id == user_id, RefreshFamily.revoked_at.is_(None))
    if kept is not None:
        statement = statement.where(RefreshFamily.id != kept)
    revoked = session.scalars(statement.values(revoked_at=func.clock_timestamp()).returning(RefreshFamily.id)).all()
    alive = RefreshToken.issued_at > queries.now(session) - timedelta(seconds=ACCESS_TOKEN_SECONDS)
    with_tokens = select(RefreshToken.family_id).distinct().where(RefreshToken.family_id.in_(revoked), alive)
    return list(session.scalars(with_tokens))


def _owner_of(session: Session, refresh_token: str) -> tuple[UUID, UUID]:
    """Return (family id, user id) of a refresh token; raises InvalidToken for an unknown one."""
    found = queries.find_refresh_token(session, refresh_token)
    if found is None:
        raise NotARefreshToken if "." in refresh_token else InvalidToken  # access tokens have two
    return found


def _open_session(session: Session, user: User, policy: SessionPolicy, refresh_token: str | None = None) -> SessionView:
    now = queries.now(session)
    family = RefreshFamily(id=new_id(), user_id=user.id, created_at=now, expires_at=now + policy.lifetime)
    session.add(family)
    session.flush()
    refresh_token = refresh_token or token_issuer.new_refresh_token()
    return _issue(user, _add_token(session, family.id, refresh_token, user, now), refresh_token, policy.key)


def _replacement(
    session: Session, user: User, token: RefreshToken, refresh_token: str, now: datetime, policy: SessionPolicy
) -> SessionView:
    if token.successor_salt is not None:
        successor = token_issuer.successor(refresh_token, token.successor_salt)
        return _issue(user, session.get_one(RefreshToken, token_issuer.fingerprint(successor)), successor, policy.key)
    token.replaced_at, token.successor_salt = now, token_issuer.new_salt()
    successor = token_issuer.successor(refresh_token, token.successor_salt)
    return _issue(user, _add_token(session, token.family_id, successor, user, now), successor, policy.key)


def _add_token(session: Session, family_id: UUID, refresh_token: str, user: User, now: datetime) -> RefreshToken:
    token = RefreshToken(
        fingerprint=token_issuer.fingerprint(refresh_token),
        family_id=family_id,
        access_token_id=new_id(),
        access_roles=user.roles,
        issued_at=now,
    )
    session.add(token)
    return token


def _issue(user: User, token: RefreshToken, refresh_token: str, key: token_issuer.SigningKey) -> SessionView:
    access_token = token_issuer.issue(
        key,
        user_id=user.id,
        roles=token.access_roles,
        issued_at=token.issued_at,
        token_id=token.access_token_id,
        session_id=token.family_id,
        # As it was then: the same pair is issued again, byte for byte.
        email_verified=user.email_verified_at is not None and user.email_verified_at <= token.issued_at,
    )
    return SessionView(
        user=UserView.model_validate(user),
        access_token=access_token,
        refresh_token=refresh_token,
        expires_in=ACCESS_TOKEN_SECONDS,
    )


def _end_session(session: Session, user: User, family: RefreshFamily, publish: Publish) -> None:
    """Revoke a family, and publish it so that its access tokens are refused. The account does not change."""
    if family.revoked_at is None:
        family.revoked_at = queries.now(session)
        publish(queries.describe_change(user, family.revoked_at, [family.id]))
