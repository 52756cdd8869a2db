"""What reads the accounts."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from contracts.base import Actor, PageRequest, page_of
from contracts.users import TokenRevoked, UserNotFound, UserUpdated, UserView, VerifiedToken
from extensions.pagination import fetch_page
from extensions.tokens import AccessToken
from users.models import RefreshFamily, RefreshToken, User
from users.tokens import fingerprint

MAX_CHANGED = 10_000


def now(session: Session) -> datetime:
    """Return the database's time, the one clock that all replicas share."""
    time: datetime = session.scalars(select(func.clock_timestamp())).one()
    return time


def get_user(session: Session, user_id: UUID, actor: Actor) -> UserView:
    """Return the account; raises UserNotFound, also for one that is not the actor's to see."""
    user = session.get(User, user_id) if actor.may_see(user_id) else None
    if user is None:
        raise UserNotFound
    return UserView.model_validate(user)


def list_users(session: Session, page: PageRequest) -> dict[str, Any]:
    """Return a page of the accounts, the newest first."""
    users, cursor = fetch_page(session, select(User), keys=[User.id], limit=page.limit, cursor=page.cursor)
    return page_of([UserView.model_validate(user) for user in users], cursor)


def list_changed(session: Session, within: timedelta) -> list[UserUpdated]:
    """Return what user.updated said within this time, one for each account."""
    since = func.clock_timestamp() - within
    # A new account has not changed: its tokens were made from what it is.
    changed = session.scalars(
        select(User)
        .where(User.updated_at > since, User.updated_at > User.created_at)
        .order_by(User.updated_at.desc())
        .limit(MAX_CHANGED)
    )
    return [
        UserUpdated.model_validate(
            {"user_id": user.id, "roles": user.roles, "is_active": user.is_active, "at": user.updated_at}
        )
        for user in changed
    ]


def find_by_email(session: Session, email: str) -> User | None:
    """Return the account with this address, None if there is none."""
    return session.scalars(select(User).where(func.lower(User.email) == func.lower(email))).one_or_none()


def find_registration(session: Session, email: str, idempotency_key: str) -> User | None:
    """Return the account with this address if it was registered with this key, else None."""
    user = find_by_email(session, email)
    return user if user is not None and user.registration_key == fingerprint(idempotency_key) else None


def describe_token(session: Session, token: AccessToken) -> VerifiedToken:
    """Return what a genuine access token is good for now, with the roles of now.

    Raises TokenRevoked when its account is switched off or gone.
    """
    user = session.get(User, token.user_id)
    if user is None or not user.is_active:
        raise TokenRevoked
    return VerifiedToken.model_validate(
        {"user_id": user.id, "roles": tuple(user.roles), "expires_at": token.expires_at}
    )


def lock_user(session: Session, user_id: UUID, *, shared: bool = False) -> User | None:
    """Return the account as it is now, locked until the transaction ends; None if there is none.

    Whoever makes tokens takes the lock shared, whoever changes the account alone: no token is made from roles that are
    being taken away, and every token with an `iat` after a change was made after it.
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
