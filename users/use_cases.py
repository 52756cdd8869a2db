"""What changes accounts and sessions.

Locks are taken in one order: the account, then a family of refresh tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
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
    InvalidCredentials,
    InvalidToken,
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
from extensions.security.tokens import PublicKeys
from users import queries, tokens
from users.models import RefreshFamily, RefreshToken, User

REPLAY_WINDOW = timedelta(seconds=10)
CLEAN_UP_ROWS = 500


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """What sessions are made with: the keys of access tokens, and how long a login lasts."""

    signing_keys: tuple[tokens.SigningKey, ...]
    """The first signs. Those that were rotated out are there to repeat what they have signed."""
    public_keys: PublicKeys
    lifetime: timedelta

    @property
    def key(self) -> tokens.SigningKey:
        """The key that signs."""
        return self.signing_keys[0]


def register(
    session: Session,
    email: str,
    password_hash: str,
    policy: SessionPolicy,
    publish: Publish,
    *,
    repeatable: bool = False,
) -> SessionView:
    """Open an account for a customer and log it in; raises UserAlreadyExists.

    If `repeatable`, `repeat_registration` can give the same answer again.
    """
    values = {
        "id": new_id(),
        "email": email,
        "password_hash": password_hash,
        "roles": [Role.CUSTOMER.value],
    }
    statement = insert(User).values(values).on_conflict_do_nothing(index_elements=[func.lower(User.email)])
    user = session.scalars(statement.returning(User)).one_or_none()
    if user is None:
        raise UserAlreadyExists
    publish(UserRegistered(user_id=user.id, email=user.email))
    first = tokens.first_refresh_token(policy.key, user.id) if repeatable else None
    return _open_session(session, user, policy, first)


def repeat_registration(session: Session, user_id: UUID, policy: SessionPolicy) -> SessionView:
    """Return what `register` answered, byte for byte; neither the answer nor its tokens were stored.

    Raises UserAlreadyExists once that first session is over and forgotten.
    """
    user = session.get(User, user_id)
    for key in policy.signing_keys:
        refresh_token = tokens.first_refresh_token(key, user_id)
        token = session.get(RefreshToken, tokens.fingerprint(refresh_token))
        if token is not None and user is not None:
            answer = _issue(user, token, refresh_token, key)
            as_it_was = {"roles": (Role.CUSTOMER,), "is_active": True, "updated_at": user.created_at}
            return answer.model_copy(update={"user": answer.user.model_copy(update=as_it_was)})
    raise UserAlreadyExists


def log_in(
    session: Session, user_id: UUID, password_hash: str, policy: SessionPolicy, renewed: str | None = None
) -> SessionView | None:
    """Start a session for a user whose password was found to match `password_hash`, and keep its `renewed` hash.

    None: the hash has changed in between. Raises InvalidCredentials for an account that is gone, UserInactive for one
    that is switched off.
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
    """Replace `refresh_token` by a new pair; within 10 s of the first time, answer with that same pair again.

    None: it was replaced longer ago, so one of two holders stole it, and the whole family is revoked now. The caller
    raises TokenRevoked *after* the commit. Raises InvalidToken, TokenRevoked or UserInactive where nothing is to keep.
    """
    family_id, user_id = _owner_of(session, refresh_token)
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
        _end_session(session, user, family, publish)
        return None
    return _replacement(session, user, token, refresh_token, now, policy)


def log_out(session: Session, refresh_token: str, actor: Actor, publish: Publish) -> None:
    """Revoke the family of `refresh_token`, once or again; raises InvalidToken for an unknown one or someone else's."""
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
    """Change what is stated, all of it or nothing; switching an account off ends its sessions.

    Raises ValidationFailed where nothing is stated, UserNotFound, PreconditionFailed where `if_match` does not have the
    account's entity tag, InvalidState where nobody would be left who may do this.
    """
    if not change.model_fields_set:
        raise ValidationFailed.field("", "state roles, is_active or both")
    user = _lock(session, user_id)
    require_match(UserView.model_validate(user), if_match)
    roles, is_active = user.roles, user.is_active
    if "roles" in change.model_fields_set:
        roles = [role.value for role in Role if role in change.roles]
    if "is_active" in change.model_fields_set:
        is_active = change.is_active
    # Their access tokens stay dead when the account is switched on again.
    ended = [] if is_active else _revoke_all(session, user_id)
    if (roles, is_active) != (user.roles, user.is_active):
        if not (is_active and Role.ADMIN in roles):
            _require_another_admin(session, user)
        user.roles, user.is_active = roles, is_active
        _updated(session, user, publish, ended)
    return UserView.model_validate(user)


def delete_expired_sessions(session: Session) -> int:
    """Delete some of the families whose time is over, with their tokens, and return how many.

    Until then a used or revoked token is kept: it must be recognised.
    """
    expired = (
        select(RefreshFamily.id)
        .where(RefreshFamily.expires_at < func.statement_timestamp())  # one time for all rows: an index serves it
        .order_by(RefreshFamily.expires_at)
        .limit(CLEAN_UP_ROWS)
        .with_for_update(skip_locked=True)
    )
    families = session.scalars(expired).all()
    session.execute(delete(RefreshFamily).where(RefreshFamily.id.in_(families)))
    return len(families)


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
    refresh_token = refresh_token or tokens.new_refresh_token()
    return _issue(user, _add_token(session, family.id, refresh_token, user, now), refresh_token, policy.key)


def _replacement(
    session: Session, user: User, token: RefreshToken, refresh_token: str, now: datetime, policy: SessionPolicy
) -> SessionView:
    if token.successor_salt is not None:
        successor = tokens.successor(refresh_token, token.successor_salt)
        return _issue(user, session.get_one(RefreshToken, tokens.fingerprint(successor)), successor, policy.key)
    token.replaced_at, token.successor_salt = now, tokens.new_salt()
    successor = tokens.successor(refresh_token, token.successor_salt)
    return _issue(user, _add_token(session, token.family_id, successor, user, now), successor, policy.key)


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


def _issue(user: User, token: RefreshToken, refresh_token: str, key: tokens.SigningKey) -> SessionView:
    access_token = tokens.issue(
        key,
        user_id=user.id,
        roles=token.access_roles,
        issued_at=token.issued_at,
        token_id=token.access_token_id,
        session_id=token.family_id,
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


def _require_another_admin(session: Session, user: User) -> None:
    """Raise InvalidState if this account, which is locked and as it was, is the only administrator that is active."""
    if not user.is_active or Role.ADMIN not in user.roles:
        return
    # Two administrators who take each other's role at the same time have locked different accounts.
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended("the last administrator", 0))))
    others = select(User.id).where(User.is_active, User.roles.contains([Role.ADMIN.value]), User.id != user.id)
    if session.scalars(others.limit(1)).first() is None:
        raise InvalidState("This is the last active administrator. Make somebody else an administrator first.")


def _updated(session: Session, user: User, publish: Publish, ended: Sequence[UUID] = ()) -> None:
    user.updated_at = queries.now(session)
    publish(queries.describe_change(user, user.updated_at, ended))


def _end_session(session: Session, user: User, family: RefreshFamily, publish: Publish) -> None:
    """Revoke a family, and let those know who hold its access tokens for good. The account is as it was."""
    if family.revoked_at is None:
        family.revoked_at = queries.now(session)
        publish(queries.describe_change(user, family.revoked_at, [family.id]))


def _revoke_all(session: Session, user_id: UUID) -> list[UUID]:
    """Revoke the families of an account, and return those that have an access token which has not expired."""
    statement = update(RefreshFamily).where(RefreshFamily.user_id == user_id, RefreshFamily.revoked_at.is_(None))
    revoked = session.scalars(statement.values(revoked_at=func.clock_timestamp()).returning(RefreshFamily.id)).all()
    alive = RefreshToken.issued_at > queries.now(session) - timedelta(seconds=ACCESS_TOKEN_SECONDS)
    with_tokens = select(RefreshToken.family_id).distinct().where(RefreshToken.family_id.in_(revoked), alive)
    return list(session.scalars(with_tokens))
