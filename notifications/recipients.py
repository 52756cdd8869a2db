"""What notifications knows of the users: a small replica of what users publishes. It accepts every order of arrival."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from contracts.base import Actor, Received
from contracts.etags import require_match
from contracts.notifications import PreferencesNotFound, PreferencesView, SetPreferences
from contracts.users import Role, UserDeleted, UserRegistered, UserUpdated
from notifications import mails
from notifications.models import Notification, Recipient
from notifications.preferences import stored, view_of
from notifications.webhooks import delete_webhooks_of, disable_shop_webhooks

_REGISTER = text(
    """
    INSERT INTO recipients (user_id, email, language)
    SELECT * FROM unnest(CAST(:users AS uuid[]), CAST(:emails AS text[]), CAST(:languages AS text[]))
    ON CONFLICT (user_id) DO UPDATE
    SET email = excluded.email, language = coalesce(recipients.language, excluded.language),
        updated_at = clock_timestamp()
    WHERE recipients.deleted_at IS NULL
    """
)
_UPDATE = text(
    """
    INSERT INTO recipients (user_id, is_admin, language, changed_at)
    SELECT * FROM unnest(CAST(:users AS uuid[]), CAST(:admins AS boolean[]), CAST(:languages AS text[]),
                         CAST(:times AS timestamptz[]))
    ON CONFLICT (user_id) DO UPDATE
    SET is_admin = excluded.is_admin, language = coalesce(excluded.language, recipients.language),
        changed_at = excluded.changed_at, updated_at = clock_timestamp()
    WHERE recipients.deleted_at IS NULL
      AND (recipients.changed_at IS NULL OR recipients.changed_at < excluded.changed_at)
    """
)
_DELETE = text(
    """
    INSERT INTO recipients (user_id, deleted_at) SELECT unnest(CAST(:users AS uuid[])), clock_timestamp()
    ON CONFLICT (user_id) DO UPDATE
    SET email = NULL, language = NULL, is_admin = false, preferences = '{}',
        deleted_at = coalesce(recipients.deleted_at, clock_timestamp()), updated_at = clock_timestamp()
    """
)

_INTRODUCE = text("INSERT INTO recipients (user_id) VALUES (:user) ON CONFLICT DO NOTHING")


def apply_user_events(session: Session, events: Sequence[Received[Any]], *, with_mails: bool) -> None:
    """Record registrations, changes and deletions of accounts. A deletion is final, whatever comes after it."""
    registered = {one.event.user_id: one.event for one in events if isinstance(one.event, UserRegistered)}
    updated = _latest(one.event for one in events if isinstance(one.event, UserUpdated))
    deleted = sorted({one.event.user_id for one in events if isinstance(one.event, UserDeleted)})
    if registered:
        users = sorted(registered)
        values = {
            "users": users,
            "emails": [registered[user_id].email for user_id in users],
            "languages": [str(registered[user_id].language) for user_id in users],
        }
        session.execute(_REGISTER, values)
    if updated:
        _apply_updates(session, updated, with_mails=with_mails)
    if deleted:
        _forget(session, deleted)


def recipients(session: Session, user_ids: Iterable[UUID]) -> dict[UUID, Any]:
    """Return what is known of these users: `email`, `language`, `preferences`, `deleted_at`."""
    wanted = sorted(set(user_ids))
    if not wanted:
        return {}
    found = session.execute(
        select(
            Recipient.user_id, Recipient.email, Recipient.language, Recipient.preferences, Recipient.deleted_at
        ).where(Recipient.user_id.in_(wanted))
    )
    return {row.user_id: row for row in found}


def administrators(session: Session) -> list[UUID]:
    """Return the administrators."""
    return list(session.scalars(select(Recipient.user_id).where(Recipient.is_admin).order_by(Recipient.user_id)))


def _latest(events: Iterable[UserUpdated]) -> Mapping[UUID, UserUpdated]:
    """Return the latest event of each user: an INSERT may meet each row once."""
    latest: dict[UUID, UserUpdated] = {}
    for event in sorted(events, key=lambda event: event.at):
        known = latest.get(event.user_id)
        if event.language is None and known is not None:
            latest[event.user_id] = event.model_copy(update={"language": known.language})
        else:
            latest[event.user_id] = event
    return latest


def _apply_updates(session: Session, updated: Mapping[UUID, UserUpdated], *, with_mails: bool) -> None:
    users = sorted(updated)
    events = [updated[user_id] for user_id in users]
    values = {
        "users": users,
        "admins": [Role.ADMIN in event.roles for event in events],
        "languages": [None if event.language is None else str(event.language) for event in events],
        "times": [event.at for event in events],
    }
    session.execute(_UPDATE, values)
    if others := [event.user_id for event in events if Role.ADMIN not in event.roles]:
        # Of the replica, not of the event, which may be older than what is known.
        demoted = select(Recipient.user_id).where(Recipient.user_id.in_(others), ~Recipient.is_admin)
        disable_shop_webhooks(session, list(session.scalars(demoted)), with_mails=with_mails)


def _forget(session: Session, user_ids: Sequence[UUID]) -> None:
    """Remove everything personal. The rows about orders stay, without text: the consistency check counts them."""
    session.execute(_DELETE, {"users": list(user_ids)})
    session.execute(
        update(Notification).where(Notification.user_id.in_(user_ids)).values(subject="", body="", in_app=False)
    )
    delete_webhooks_of(session, user_ids)
    mails.forget(session, user_ids)


def get_preferences(session: Session, user_id: UUID, actor: Actor) -> PreferencesView:
    """Return the preferences of a user. Raises PreferencesNotFound."""
    _require_self(user_id, actor)
    known = recipients(session, [user_id]).get(user_id)
    return view_of(None if known is None else known.preferences)


def set_preferences(
    session: Session, user_id: UUID, wanted: SetPreferences, actor: Actor, if_match: Sequence[str] | None
) -> PreferencesView:
    """Replace the preferences of a user. Raises PreferencesNotFound."""
    _require_self(user_id, actor)
    session.execute(_INTRODUCE, {"user": user_id})
    recipient = session.get(Recipient, user_id, with_for_update=True)
    if recipient is None or recipient.deleted_at is not None:
        raise PreferencesNotFound
    require_match(view_of(recipient.preferences), if_match)
    recipient.preferences = stored(wanted)
    recipient.updated_at = func.clock_timestamp()
    session.flush()
    return view_of(recipient.preferences)


def _require_self(user_id: UUID, actor: Actor) -> None:
    if actor.user_id not in {None, user_id}:
        raise PreferencesNotFound
