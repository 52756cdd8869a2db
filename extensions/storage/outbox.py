"""The outbox: a table of events that the broker has not confirmed yet.

A unit of work inserts the events, in the transaction that caused them. The relay
(extensions/messaging/outbox_relay.py) locks, publishes and deletes them.
"""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, Table, bindparam, delete, func, or_, select, update
from sqlalchemy.orm import Session

from contracts.base import Cause, Event, Received, StoredCause
from contracts.ids import new_id

MAX_COUNTED = 10_000
LONGEST_PAUSE_SECONDS = 60
"""The longest pause before the next try of an event that the broker refused."""
LONGEST_REASON = 1000


def new_row(event: Event, cause: Cause) -> dict[str, Any]:
    """Return the row for `event`, with a new message id and the trace and causation id of `cause`."""
    headers = {"x-request-id": cause.request_id, "traceparent": cause.traceparent}
    if isinstance(cause, Received | StoredCause):
        headers["causation-id"] = str(cause.message_id)
    return {
        "message_id": new_id(),
        "event_type": event.event_type,
        "body": event.to_json(),
        "correlation_id": event.correlation_id,
        "headers": headers,
    }


def select_due(outbox: Table, limit: int) -> Select[Any]:
    """Return the statement that locks the oldest `limit` rows that are due, without rows that others have locked.

    Its parameter `paused` is a list of event types to leave out. It is executed many times a second, so build it once.
    """
    now = func.clock_timestamp()
    # A due time beyond the longest pause was written before the database's clock was set back. Such a row is due too.
    due = or_(outbox.c.due_at <= now, outbox.c.due_at > now + timedelta(seconds=LONGEST_PAUSE_SECONDS))
    tried = outbox.c.event_type.not_in(bindparam("paused", expanding=True))
    return select(outbox).where(due, tried).order_by(outbox.c.id).limit(limit).with_for_update(skip_locked=True)


def delete_rows(session: Session, outbox: Table, rows: Sequence[Any]) -> None:
    """Delete rows whose events the broker has confirmed."""
    if rows:
        session.execute(delete(outbox).where(outbox.c.id.in_([row.id for row in rows])))


def postpone_rows(session: Session, outbox: Table, rows: Sequence[tuple[Any, str]]) -> None:
    """Postpone rows whose events the broker refused; each comes with the reason.

    The pause before the next try is 1 s, then 2 s, 4 s and so on, up to LONGEST_PAUSE_SECONDS.
    """
    if not rows:
        return
    session.execute(
        update(outbox)
        .where(outbox.c.id == bindparam("row_id"))
        .values(
            attempts=outbox.c.attempts + 1,
            due_at=func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, bindparam("pause")),
            last_error=bindparam("reason"),
        ),
        [
            {"row_id": row.id, "pause": pause_after(row.attempts), "reason": reason[:LONGEST_REASON]}
            for row, reason in rows
        ],
    )


def pause_after(attempts: int) -> float:
    """Return the pause, in seconds, after an event was refused that had been refused `attempts` times before."""
    return float(min(2 ** min(attempts, 30), LONGEST_PAUSE_SECONDS))


def make_due(session: Session, outbox: Table, event_types: Collection[str]) -> None:
    """Make the postponed events of these types due now, because the broker accepts these types again."""
    if event_types:
        later = outbox.c.event_type.in_(event_types), outbox.c.attempts > 0, outbox.c.due_at > func.clock_timestamp()
        session.execute(update(outbox).where(*later).values(due_at=func.clock_timestamp()))


def backlog(session: Session, outbox: Table) -> tuple[float, float, float]:
    """Return the number of rows, the age of the oldest in seconds, and the number of refused rows.

    At most MAX_COUNTED rows are counted.
    """
    waiting = select(outbox.c.created_at, outbox.c.attempts).order_by(outbox.c.id).limit(MAX_COUNTED).subquery()
    age = func.extract("epoch", func.clock_timestamp() - func.min(waiting.c.created_at))
    refused = func.count().filter(waiting.c.attempts > 0)
    count, oldest, postponed = session.execute(select(func.count(), age, refused).select_from(waiting)).one()
    return float(count), max(0.0, float(oldest or 0)), float(postponed)


def list_refused(session: Session, outbox: Table, limit: int, before: UUID | None) -> Sequence[Row[Any]]:
    """Return the newest refused events; with `before`, only those whose message id is below it."""
    refused = select(outbox).where(outbox.c.attempts > 0).order_by(outbox.c.message_id.desc()).limit(limit)
    if before is not None:
        refused = refused.where(outbox.c.message_id < before)
    return session.execute(refused).all()


def summary(session: Session, outbox: Table, shown: int) -> dict[str, Any]:
    """Return the number of rows, and the message ids of the oldest `shown`."""
    oldest = session.scalars(select(outbox.c.message_id).order_by(outbox.c.id).limit(shown))
    count = session.scalar(select(func.count()).select_from(outbox))
    return {"count": count, "ids": [str(message_id) for message_id in oldest]}
