"""What users do with their own accounts: passwords, verification of the address, the language, and the deletion."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from contracts.base import Cause, Publish
from contracts.errors import InvalidState, RateLimited
from contracts.etags import require_match
from contracts.users import (
    InvalidMailedToken,
    Language,
    Role,
    UpdateProfile,
    UserDeleted,
    UserInactive,
    UserView,
)
from users import mailed_tokens, queries
from users.models import PasswordResetRequest, Purpose, User
from users.use_cases import lock_account, record_change, require_another_admin, revoke_sessions

RESET_BATCH = 100
# A request that could not be handled for so long is dropped: its sender has asked again, or given up.
RESET_REQUEST_LIFETIME = mailed_tokens.LIFETIMES[Purpose.PASSWORD_RESET]
NO_PASSWORD = "none"
"""The hash of a deleted account: no password has it."""


class Origin:
    """The request that asked for a password reset: the events that follow continue its trace."""

    def __init__(self, asked: PasswordResetRequest) -> None:
        self.request_id, self.traceparent = asked.request_id, asked.traceparent


def change_password(
    session: Session,
    user_id: UUID,
    old_hash: str,
    new_hash: str,
    publish: Publish,
    *,
    kept: UUID | None = None,
    if_match: Sequence[str] | None = None,
) -> bool:
    """Replace the hash of a password that was checked, and end all sessions except `kept`.

    Returns False if the stored hash is no longer `old_hash`. Raises UserNotFound, UserInactive, and PreconditionFailed
    if `if_match` lacks the account's entity tag.
    """
    user = lock_account(session, user_id)
    require_match(UserView.model_validate(user), if_match)
    if user.password_hash != old_hash:
        return False
    if not user.is_active:
        raise UserInactive
    _set_password(session, user, new_hash, publish, kept)
    return True


def store_reset_request(session: Session, email: str, cause: Cause) -> None:
    """Store a request for a password reset. Whether there is an account is looked up when it is handled.

    So the request takes the same time for every address.
    """
    asked = PasswordResetRequest(email=email, request_id=cause.request_id, traceparent=cause.traceparent)
    session.add(asked)


def lock_reset_requests(
    session: Session, *, only: Sequence[UUID] | None = None, without: Sequence[UUID] = ()
) -> Sequence[PasswordResetRequest]:
    """Lock and return requests for a password reset, the oldest first, without those that are locked."""
    waiting = select(PasswordResetRequest)
    if only is not None:
        waiting = waiting.where(PasswordResetRequest.id.in_(only))
    if without:
        waiting = waiting.where(PasswordResetRequest.id.not_in(without))
    oldest = waiting.order_by(PasswordResetRequest.id).limit(RESET_BATCH)
    return session.scalars(oldest.with_for_update(skip_locked=True)).all()


def handle_reset_requests(session: Session, asked: Sequence[PasswordResetRequest], publish: Publish) -> None:
    """Publish a token for each request that has an active account, and delete the requests."""
    for one in sorted(asked, key=lambda one: one.email):  # accounts are locked in one order
        user = _lock_by_email(session, one.email)
        is_fresh = queries.now(session) - one.created_at < RESET_REQUEST_LIFETIME
        if user is not None and user.is_active and is_fresh:
            mailed_tokens.send(session, user, Purpose.PASSWORD_RESET, publish, Origin(one))
    done = [one.id for one in asked]
    session.execute(
        delete(PasswordResetRequest)
        .where(PasswordResetRequest.id.in_(done))
        .execution_options(synchronize_session=False)
    )


def account_to_reset(session: Session, token: str) -> User:
    """Return the account whose password may be set with `token`. Raises InvalidMailedToken."""
    user_id = mailed_tokens.owner_of(session, token, Purpose.PASSWORD_RESET)
    user = None if user_id is None else session.get(User, user_id)
    if user is None:
        raise InvalidMailedToken
    return user


def reset_password(session: Session, user_id: UUID, token: str, new_hash: str, publish: Publish) -> None:
    """Use `token` to set the hash of a new password, and end all sessions. Raises InvalidMailedToken, UserInactive."""
    user = queries.lock_user(session, user_id)
    if user is None or not mailed_tokens.use(session, token, user_id, Purpose.PASSWORD_RESET):
        raise InvalidMailedToken
    if not user.is_active:
        raise UserInactive
    _set_password(session, user, new_hash, publish)


def request_verification(session: Session, user_id: UUID, publish: Publish) -> None:
    """Publish a token that verifies the address. Raises UserNotFound, InvalidState if it is verified, RateLimited."""
    user = lock_account(session, user_id)
    if user.email_verified:
        raise InvalidState("This address is verified already.")
    if not mailed_tokens.send(session, user, Purpose.EMAIL_VERIFICATION, publish):
        seconds = mailed_tokens.seconds_until_next(session, user_id, Purpose.EMAIL_VERIFICATION)
        message = f"{mailed_tokens.MAX_OPEN} mails were sent, and their tokens are still valid. Use one of them."
        raise RateLimited(message, retry_after=seconds)


def verify_email(session: Session, token: str) -> None:
    """Use `token` to record that the address is verified. Raises InvalidMailedToken."""
    user_id = mailed_tokens.owner_of(session, token, Purpose.EMAIL_VERIFICATION)
    user = None if user_id is None else queries.lock_user(session, user_id)
    if user is None or not mailed_tokens.use(session, token, user.id, Purpose.EMAIL_VERIFICATION):
        raise InvalidMailedToken
    user.email_verified_at = user.updated_at = queries.now(session)


def update_profile(
    session: Session, user_id: UUID, changes: UpdateProfile, publish: Publish, if_match: Sequence[str] | None = None
) -> UserView:
    """Change the language. Raises UserNotFound, PreconditionFailed if `if_match` lacks the account's entity tag."""
    user = lock_account(session, user_id)
    require_match(UserView.model_validate(user), if_match)
    if user.language != changes.language:
        user.language = changes.language.value
        record_change(session, user, publish)
    return UserView.model_validate(user)


def delete_account(session: Session, user_id: UUID, password_hash: str, publish: Publish) -> bool:
    """Remove what the user stated, end all sessions, and publish it. The row stays, without personal data.

    So a gateway that was down learns that the access tokens are void. Returns False if the stored hash is no longer
    `password_hash`. A deleted account stays as it is. Raises UserNotFound, InvalidState for the last active
    administrator.
    """
    user = queries.lock_user(session, user_id)
    if user is not None and user.deleted_at is not None:
        return True
    user = lock_account(session, user_id)
    if user.password_hash != password_hash:
        return False
    require_another_admin(session, user)
    ended = revoke_sessions(session, user_id)
    mailed_tokens.delete_all(session, user_id, *Purpose)
    user.email = f"deleted:{user_id}"  # no address: nobody can register it, and nobody can log in with it
    user.password_hash, user.roles, user.is_active = NO_PASSWORD, [Role.CUSTOMER.value], False
    user.language, user.email_verified_at = Language.ENGLISH.value, None
    record_change(session, user, publish, ended)
    user.deleted_at = user.updated_at
    publish(UserDeleted(user_id=user_id))
    return True


def _set_password(session: Session, user: User, new_hash: str, publish: Publish, kept: UUID | None = None) -> None:
    """Set the hash of a locked account. Links for a reset that were sent before lose their effect."""
    user.password_hash = new_hash
    mailed_tokens.delete_all(session, user.id, Purpose.PASSWORD_RESET)
    record_change(session, user, publish, revoke_sessions(session, user.id, kept))


def _lock_by_email(session: Session, email: str) -> User | None:
    found = queries.find_by_email(session, email)
    user = None if found is None else queries.lock_user(session, found.id)
    return user if user is not None and user.email == email else None
