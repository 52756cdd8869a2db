"""The mails: stored with what they are about, then sent as work items.

Just before the server can take a mail, a transaction of its own counts the attempt as `unsettled`. A result that is
known settles it. After a crash the count remains, and a mail with two unsettled attempts is not sent again: so nobody
gets more than two of one mail, and both have the same Message-ID. A crash before that moment counts nothing: no mail is
given up because processes ended while they waited for the server.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any, Protocol
from uuid import UUID, uuid5

from sqlalchemy import delete, text
from sqlalchemy.orm import Session

from contracts.base import Publish, Received
from contracts.errors import ServiceUnavailable, UpstreamTimeout
from contracts.users import UserEmailVerificationRequested, UserPasswordResetRequested
from extensions.outbound.results import MailDeferred, MailRefused, MailUncertain
from extensions.storage import work_items
from extensions.storage.bulk import insert_rows
from extensions.storage.work_items import Item, Later
from notifications.mail_rendering import render
from notifications.mail_texts import ENGLISH
from notifications.models import Base, Mail
from notifications.preferences import Channel, wants

KIND = "mails"
RETRY_SECONDS = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 7200.0, 14_400.0, 28_800.0, 28_800.0)
"""The pauses after the first, second, ... attempt that the server did not take: 24 hours in all."""
PROMPT_SECONDS = 2.0
"""A mail that takes longer gives its place to another one."""
MAX_UNSETTLED = 2
MAX_ERROR = 300
ALWAYS = (UserPasswordResetRequested, UserEmailVerificationRequested)
"""Mails that the user has just asked for: no preference holds them back."""

_READ = text(
    """
    SELECT id, kind, language, recipient, fields FROM mails
    WHERE id = ANY(CAST(:ids AS uuid[])) AND state = 'PENDING' AND recipient IS NOT NULL AND unsettled < :most
    """
)
_COUNT = text(
    """
    UPDATE mails SET unsettled = unsettled + 1, updated_at = clock_timestamp()
    WHERE id = CAST(:id AS uuid) AND state = 'PENDING' AND recipient = :recipient AND unsettled < :most
    RETURNING id
    """
)
_LOCK = text(
    """
    SELECT id, attempts, unsettled, recipient IS NULL AS has_no_address FROM mails
    WHERE id = ANY(CAST(:ids AS uuid[])) AND state = 'PENDING' FOR UPDATE SKIP LOCKED
    """
)
_EXISTING = text("SELECT id FROM mails WHERE id = ANY(CAST(:ids AS uuid[])) AND state = 'PENDING'")
# What is personal is removed as soon as the mail is not needed any more; with it the tokens of links.
_RECORD = text(
    """
    UPDATE mails
    SET state = made.state, attempts = made.attempts, unsettled = made.unsettled, error = made.error,
        recipient = CASE WHEN made.state = 'PENDING' THEN mails.recipient END,
        fields = CASE WHEN made.state = 'PENDING' THEN mails.fields END,
        sent_at = CASE WHEN made.state = 'SENT' THEN clock_timestamp() END, updated_at = clock_timestamp()
    FROM unnest(CAST(:ids AS uuid[]), CAST(:states AS text[]), CAST(:attempts AS integer[]),
                CAST(:unsettled AS integer[]), CAST(:errors AS text[])) AS made (id, state, attempts, unsettled, error)
    WHERE mails.id = made.id
    """
)
_ADDRESS = text(
    """
    UPDATE mails SET recipient = recipients.email, language = coalesce(mails.language, recipients.language)
    FROM recipients
    WHERE recipients.user_id = mails.user_id AND recipients.email IS NOT NULL
      AND mails.user_id = ANY(CAST(:users AS uuid[])) AND mails.recipient IS NULL AND mails.state = 'PENDING'
    RETURNING mails.id
    """
)


Transaction = Callable[[], AbstractContextManager[Session]]


class MailClient(Protocol):
    """Sends mails. In a service it is extensions/outbound/smtp.py."""

    def send(self, sender: str, recipient: str, message: EmailMessage, *, before_data: Callable[[], object]) -> None:
        """Send a mail. Raises MailRefused, MailDeferred, MailUncertain.

        The server cannot take it before the call of `before_data`.
        """


@dataclass(frozen=True, slots=True)
class Sent:
    """The result of an attempt."""

    settles: bool = False
    """Whether the attempt was counted as unsettled, and its end is known."""
    is_final: bool = False
    error: str | None = None


class NotWanted(Exception):
    """The mail was sent, changed or given up since its item was claimed."""


def mail_row(
    kind: str, about: UUID, user_id: UUID, recipient: str | None, language: str | None, fields: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the row of a mail. What is told once about one thing is one mail, whatever is received twice."""
    return {
        "id": uuid5(about, kind),
        "user_id": user_id,
        "kind": kind,
        "recipient": recipient,
        "language": language,
        "fields": dict(fields),
    }


def rows_about(received: Received[Any], user_id: UUID, about: UUID, known: Any) -> list[dict[str, Any]]:
    """Return the mail about an event to this user: none, or one. `known`: what is known of the user, or None."""
    event = received.event
    kind = event.event_type
    if kind not in ENGLISH or (known is not None and known.deleted_at is not None):
        return []
    fields = event.model_dump(mode="json", exclude={"items"})
    if isinstance(event, ALWAYS):
        return [mail_row(kind, uuid5(user_id, str(received.message_id)), user_id, event.email, event.language, fields)]
    if not wants(None if known is None else known.preferences, kind, Channel.EMAIL):
        return []
    recipient, language = (None, None) if known is None else (known.email, known.language)
    return [mail_row(kind, about, user_id, recipient, language, fields)]


def store(session: Session, rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """Store mails and schedule them. A mail without an address waits for its user. Returns the kinds of work items."""
    insert_rows(session, Base.metadata.tables["mails"], rows, on_conflict="(id) DO NOTHING")
    return _schedule(session, (row["id"] for row in rows if row["recipient"] is not None))


def address_waiting(session: Session, user_ids: Iterable[UUID]) -> set[str]:
    """Schedule the mails that waited for the addresses of these users."""
    users = sorted(set(user_ids))
    return _schedule(session, session.scalars(_ADDRESS, {"users": users})) if users else set()


def forget(session: Session, user_ids: Sequence[UUID]) -> None:
    """Delete the mails to these users."""
    session.execute(delete(Mail).where(Mail.user_id.in_(user_ids)))


class MailDeliveries:
    """The work items of mails, with the mails' ids as keys."""

    def __init__(self, client: MailClient | None, sender: str, shop_url: str, transaction: Transaction) -> None:
        """`transaction` opens one that no worker has open. It raises ServiceUnavailable or UpstreamTimeout."""
        self._client, self._sender, self._shop_url, self._transaction = client, sender, shop_url, transaction

    def prepare(self, session: Session, items: Sequence[Item]) -> Mapping[str, Any]:
        """Return what each mail needs. A mail that may have been sent twice gets nothing."""
        if self._client is None:
            return {}
        values = {"ids": [UUID(item.key) for item in items], "most": MAX_UNSETTLED}
        return {str(row.id): row for row in session.execute(_READ, values)}

    def execute(self, request: Any) -> Sequence[Sent]:
        """Send a mail."""
        assert self._client is not None
        try:
            message = render(
                request.id,
                request.kind,
                request.language,
                request.fields,
                sender=self._sender,
                recipient=request.recipient,
                shop_url=self._shop_url,
            )
        except Exception as error:  # noqa: BLE001  (a mail that cannot be made never will be; it concerns only itself)
            return [Sent(is_final=True, error=f"it cannot be made: {type(error).__name__}: {error}")]
        is_counted = False

        def count() -> None:
            nonlocal is_counted
            self._count(request)
            is_counted = True

        try:
            self._client.send(self._sender, request.recipient, message, before_data=count)
        except MailRefused as error:
            return [Sent(settles=is_counted, is_final=True, error=str(error))]
        except (MailDeferred, ServiceUnavailable, NotWanted) as error:
            return [Sent(settles=is_counted, error=str(error))]
        except (MailUncertain, UpstreamTimeout) as error:
            return [Sent(error=str(error))]
        return [Sent(settles=True, is_final=True)]

    def _count(self, request: Any) -> None:
        """Count the attempt as unsettled, and commit."""
        values = {"id": request.id, "recipient": request.recipient, "most": MAX_UNSETTLED}
        with self._transaction() as session:
            if session.scalar(_COUNT, values) is None:
                raise NotWanted("it was sent, changed or given up meanwhile")

    def is_outage(self, _error: BaseException) -> bool:
        """Return True: whatever ends an attempt in an unknown way is a problem of the server."""
        return True

    def record(
        self, session: Session, outcomes: Mapping[str, Sent | None], _publish: Publish
    ) -> Mapping[str, str | Later | None]:
        """Record the attempts, and return when the next ones are due."""
        ids = {"ids": [UUID(key) for key in outcomes]}
        existing = set(session.scalars(_EXISTING, ids))
        following: dict[str, str | Later | None] = {key: None for key in outcomes if UUID(key) not in existing}
        rows = []
        for mail in session.execute(_LOCK, ids):
            outcome = outcomes[str(mail.id)]
            if outcome is None and mail.has_no_address:
                following[str(mail.id)] = None  # scheduled again when it has one
                continue
            row, step = self._next(mail, outcome)
            rows.append(row)
            following[str(mail.id)] = step
        if rows:
            session.execute(_RECORD, {name: [row[name] for row in rows] for name in rows[0]})
        return following

    def _next(self, mail: Any, outcome: Sent | None) -> tuple[dict[str, Any], str | Later | None]:
        """Return the values of _RECORD for a mail after an attempt, and its next step."""
        if outcome is None and self._client is None:
            outcome = Sent(is_final=True, error="mails are switched off")
        elif outcome is None:
            outcome = Sent(is_final=True, error="it may have been sent twice already")
        unsettled = max(0, mail.unsettled - outcome.settles)
        attempts = mail.attempts + 1
        is_sent = outcome.is_final and outcome.error is None
        is_last = outcome.is_final or attempts > len(RETRY_SECONDS) or unsettled >= MAX_UNSETTLED
        state = "SENT" if is_sent else "FAILED" if is_last else "PENDING"
        error = None if outcome.error is None else outcome.error.replace("\x00", "")[:MAX_ERROR]
        row = {"ids": mail.id, "states": state, "attempts": attempts, "unsettled": unsettled, "errors": error}
        return row, None if is_sent or is_last else Later(KIND, RETRY_SECONDS[attempts - 1])


def _schedule(session: Session, mail_ids: Iterable[UUID]) -> set[str]:
    steps = {str(mail_id): KIND for mail_id in mail_ids}
    work_items.schedule(session, steps)
    return set(steps.values())
