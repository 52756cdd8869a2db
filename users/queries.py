"""The queries of the users service."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from contracts.base import Actor, Json, Page, PageRequest, page_of
from contracts.errors import ValidationFailed
from contracts.users import LoginView, TokenRevoked, UserNotFound, UserUpdated, UserView, VerifiedToken
from extensions.security.access_tokens import AccessToken
from extensions.storage.pagination import fetch_page
from users.models import RefreshFamily, RefreshToken, User
from users.token_issuer import fingerprint

MAX_CHANGED = 10_000


def now(session: Session) -> datetime:
    """Return the database's time, the clock that all instances share."""
    time: datetime = session.scalars(select(func.clock_timestamp())).one()
    return time


def get_user(session: Session, user_id: UUID, actor: Actor) -> UserView:
    """Return the account. Raises UserNotFound, also for an account that the actor may not see."""
    return UserView.model_validate(_visible(session, user_id, actor))


def find_own(session: Session, actor: Actor) -> User:
    """Return the account of a user who acts on it, also if it is deleted. Raises ValidationFailed for the operator."""
    if actor.user_id is None:
        raise ValidationFailed.field("actor", 'this is for users: pass actor={"user_id": "...", ...}')
    user = session.get(User, actor.user_id)
    if user is None:
        raise UserNotFound
    return user


def list_users(session: Session, page: PageRequest) -> Json[Page[UserView]]:
    """Return a page of the accounts, the newest first, without deleted ones."""
    accounts = select(User).where(User.deleted_at.is_(None))
    users, cursor = fetch_page(session, accounts, keys=[User.id], limit=page.limit, cursor=page.cursor)
    return page_of([UserView.model_validate(user) for user in users], cursor)


def list_sessions(session: Session, user_id: UUID, page: PageRequest, actor: Actor) -> Json[Page[LoginView]]:
    """Return a page of the sessions of an account, the newest first. Raises UserNotFound."""
    _visible(session, user_id, actor)
    mine = select(RefreshFamily).where(RefreshFamily.user_id == user_id)
    found, cursor = fetch_page(session, mine, keys=[RefreshFamily.id], limit=page.limit, cursor=page.cursor)
    return page_of([LoginView.model_validate(one) for one in found], cursor)


def _visible(session: Session, user_id: UUID, actor: Actor) -> User:
    user = session.get(User, user_id) if actor.may_see(user_id) else None
    if user is None or user.deleted_at is not None:
        raise UserNotFound
    return user


def list_changed(
    session: Session, within: timedelta, until: datetime | None = None
) -> tuple[list[UserUpdated], datetime | None]:
    """Return the latest UserUpdated of each account that changed in the last `within`, but not after `until`.

    The latest changes come first, about MAX_CHANGED at most. The second value is the `until` of the next page, or None
    on the last page.
    """
    # statement_timestamp() is constant during the statement, so the index can be used; clock_timestamp() is not.
    since, latest = func.statement_timestamp() - within, until or func.statement_timestamp()
    # A new account has not changed since its tokens were made.
    statement = (
        select(User)
        .where(User.updated_at > since, User.updated_at <= latest, User.updated_at > User.created_at)
        .order_by(User.updated_at.desc())
        .limit(MAX_CHANGED)
    )
    changed = {user.id: user for user in session.scalars(statement)}
    families = _families_revoked(session, since, latest)
    ended: dict[UUID, list[UUID]] = {}
    for family in families:
        ended.setdefault(family.user_id, []).append(family.id)
    others = session.scalars(select(User).where(User.id.in_(ended.keys() - changed.keys())))
    users = [*changed.values(), *others]
    changes = [describe_change(user, user.updated_at, ended.get(user.id, ())) for user in users]
    oldest = [user.updated_at for user in list(changed.values())[MAX_CHANGED - 1 :]]
    oldest += [family.revoked_at for family in families[MAX_CHANGED - 1 :]]
    return changes, max(oldest, default=None)


def _families_revoked(session: Session, since: ColumnElement[Any], latest: Any) -> Sequence[Any]:
    """Return (id, user_id, revoked_at) of the sessions revoked after `since`, the latest first."""
    statement = (
        select(RefreshFamily.id, RefreshFamily.user_id, RefreshFamily.revoked_at)
        .where(RefreshFamily.revoked_at > since, RefreshFamily.revoked_at <= latest)
        .order_by(RefreshFamily.revoked_at.desc())
        .limit(MAX_CHANGED)
    )
    return session.execute(statement).all()


def describe_change(user: User, at: datetime, ended_sessions: Sequence[UUID]) -> UserUpdated:
    """Return the event with the state of `user` at `at`."""
    return UserUpdated.model_validate(
        {
            "user_id": user.id,
            "roles": user.roles,
            "is_active": user.is_active,
            "language": user.language,
            "at": at,
            "ended_sessions": tuple(ended_sessions),
        }
    )


def find_by_email(session: Session, email: str) -> User | None:
    """Return the account with this address, None if there is none."""
    return session.scalars(select(User).where(func.lower(User.email) == func.lower(email))).one_or_none()


def describe_token(session: Session, token: AccessToken) -> VerifiedToken:
    """Return the content of a verified access token, with the account's current roles.

    Raises TokenRevoked if the account is inactive or deleted, or the session has ended.
    """
    user = session.get(User, token.user_id)
    if user is None or not user.is_active or _has_ended(session, token.session_id):
        raise TokenRevoked
    return VerifiedToken.model_validate(
        {"user_id": user.id, "roles": tuple(user.roles), "expires_at": token.expires_at}
    )


def _has_ended(session: Session, family_id: UUID | None) -> bool:
    if family_id is None:
        return False
    family = session.get(RefreshFamily, family_id)
    return family is None or family.revoked_at is not None


def lock_user(session: Session, user_id: UUID, *, shared: bool = False) -> User | None:
    """Return the current account, locked until the transaction ends; None if there is none.

    Transactions that issue tokens take a shared lock, and those that change the account an exclusive lock. So no token
    is issued with roles that are being removed, and a token whose `iat` is later than a change has the new roles.
    """
    return session.get(User, user_id, with_for_update={"read": shared}, populate_existing=True)


def find_refresh_token(session: Session, refresh_token: str) -> tuple[UUID, UUID] | None:
    """Return (family id, user id) of a refresh token, None if there is no such token."""
    statement = (
        select(RefreshFamily.id, RefreshFamily.user_id)
        .join(RefreshToken, RefreshToken.family_id == RefreshFamily.id)
        .where(RefreshToken.fingerprint == fingerprint(refresh_token))
    )
    found = session.execute(statement).one_or_none()
    return None if found is None else (found.id, found.user_id)
