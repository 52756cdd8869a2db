"""Events that were published, but that the event log has not confirmed: pieces of the log that wait to be written.

The relay inserts them in the transaction that deletes the events from the outbox
(extensions/messaging/outbox_relay.py). A process that has written a piece into the log deletes it.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Table, delete, func, insert, select
from sqlalchemy.orm import Session

NAME = "unlogged_events"


class Dropped(NamedTuple):
    """Pieces that were deleted because there were too many: the number, and when the first and the last were stored."""

    number: int
    since: datetime
    until: datetime


def add(session: Session, table: Table, bodies: Iterable[str]) -> None:
    """Store pieces of the log, each a few lines."""
    if rows := [{"body": body} for body in bodies]:
        session.execute(insert(table), rows)


def add_first(session: Session, table: Table, body: str, since: datetime) -> None:
    """Store a piece in place of others that were dropped, of which the first was stored at `since`."""
    session.execute(insert(table).values(body=body, created_at=since))


def lock_oldest(session: Session, table: Table, limit: int) -> Sequence[Any]:
    """Lock and return the oldest pieces, as (id, body), without those that another process has locked."""
    oldest = select(table.c.id, table.c.body).order_by(table.c.id).limit(limit).with_for_update(skip_locked=True)
    return session.execute(oldest).all()


def remove(session: Session, table: Table, ids: Sequence[int]) -> None:
    """Delete pieces that the log has."""
    session.execute(delete(table).where(table.c.id.in_(ids)))


def drop_oldest(session: Session, table: Table, most_bytes: int) -> Dropped | None:
    """Delete the oldest pieces if there are more than `most_bytes`, so many that half of it is left.

    None if there are not so many. Pieces that another process has locked stay.
    """
    size = func.pg_column_size(table.c.body)
    if (session.scalar(select(func.sum(size)).select_from(table)) or 0) <= most_bytes:
        return None
    newer = select(table.c.id, func.sum(size).over(order_by=table.c.id.desc()).label("bytes")).subquery()
    surplus = select(newer.c.id).where(newer.c.bytes > most_bytes // 2)
    free = select(table.c.id).where(table.c.id.in_(surplus)).with_for_update(skip_locked=True)
    gone = session.scalars(delete(table).where(table.c.id.in_(free)).returning(table.c.created_at)).all()
    return Dropped(len(gone), min(gone), max(gone)) if gone else None
