"""The outbox: events stored in the transaction that caused them, until the broker has confirmed them.

A unit of work inserts rows; the relay (extensions/messaging/outbox_relay.py) locks, publishes and deletes them.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Select, Table, bindparam, delete, func, or_, select, update
from sqlalchemy.orm import Session

from contracts.base import Cause, Event, Received, StoredCause
from contracts.ids import new_id

MAX_COUNTED = 10_000
LONGEST_PAUSE_SECONDS = 60
"""The longest time that an event is postponed after no queue took it."""


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
    """Return the statement that locks the oldest `limit` rows that are due; rows locked by others are skipped.

    Build it once: it is executed many times a second.
    """
    now = func.clock_timestamp()
    # A due time further away than the longest pause was written before the database's clock was set back.
    due = or_(outbox.c.due_at <= now, outbox.c.due_at > now + timedelta(seconds=LONGEST_PAUSE_SECONDS))
    return select(outbox).where(due).order_by(outbox.c.id).limit(limit).with_for_update(skip_locked=True)


def delete_rows(session: Session, outbox: Table, rows: Sequence[Any]) -> None:
    """Delete rows whose events the broker has confirmed."""
    if rows:
        session.execute(delete(outbox).where(outbox.c.id.in_([row.id for row in rows])))


def postpone_rows(session: Session, outbox: Table, rows: Sequence[Any]) -> None:
    """Keep rows whose events no queue took: due again after 1, 2, 4 ... LONGEST_PAUSE_SECONDS, behind the others."""
    if not rows:
        return
    session.execute(
        update(outbox)
        .where(outbox.c.id == bindparam("row_id"))
        .values(
            attempts=outbox.c.attempts + 1,
            due_at=func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, bindparam("pause")),
        ),
        [{"row_id": row.id, "pause": float(min(2**row.attempts, LONGEST_PAUSE_SECONDS))} for row in rows],
    )


def backlog(session: Session, outbox: Table) -> tuple[float, float]:
    """Return the number of rows, at most MAX_COUNTED, and the age of the oldest in seconds."""
    waiting = select(outbox.c.created_at).order_by(outbox.c.id).limit(MAX_COUNTED).subquery()
    age = func.extract("epoch", func.clock_timestamp() - func.min(waiting.c.created_at))
    count, oldest = session.execute(select(func.count(), age).select_from(waiting)).one()
    return float(count), max(0.0, float(oldest or 0))


def summary(session: Session, outbox: Table, shown: int) -> dict[str, Any]:
    """Return the number of rows, and the message ids of the oldest `shown`."""
    oldest = session.scalars(select(outbox.c.message_id).order_by(outbox.c.id).limit(shown))
    count = session.scalar(select(func.count()).select_from(outbox))
    return {"count": count, "ids": [str(message_id) for message_id in oldest]}
