"""Users who have deleted their accounts, in the database of a service that keeps records of users.

`user.deleted` may be the first event about a user that a service receives. A request under way, or an event that
arrives later, may add records afterwards. So the records are checked at once, after CHECKS, and then once a day until
no dead letter of that time can be replayed any more. Nothing on the way of an order reads this table.
"""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, Protocol
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Column, DateTime, Index, MetaData, Table, Uuid, case, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from extensions.storage.tables import DELETABLE

TABLE = "deleted_users"
BATCH = 50
CHECKS = (
    timedelta(seconds=10),  # requests that were under way
    timedelta(minutes=2),  # a gateway that had lost its connection, and events that were tried again
    timedelta(minutes=20),  # the lifetime of an access token
)
DAILY = timedelta(days=1)
KEPT = timedelta(days=91)
"""Longer than dead letters are kept (DEAD_LETTER_HOURS)."""


class DeletedUser(Protocol):
    """A locked row."""

    id: UUID


def define(metadata: MetaData) -> Table:
    """Add the table to the metadata of a service, and return it."""
    table = Table(
        TABLE,
        metadata,
        Column("id", Uuid, primary_key=True),
        Column("check_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
        Column("deleted_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
        info=DELETABLE,
    )
    Index(None, table.c.check_at)
    return table


def create_table(op: Any) -> None:
    """Create the table, in a revision of a service."""
    op.create_table(
        TABLE,
        sa.Column("id", sa.Uuid, nullable=False),
        *(
            sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=sa.func.clock_timestamp())
            for name in ("check_at", "deleted_at")
        ),
        sa.PrimaryKeyConstraint("id", name=f"pk_{TABLE}"),
    )
    op.create_index(f"ix_{TABLE}_check_at", TABLE, ["check_at"])


def add(session: Session, table: Table, user_ids: Iterable[UUID]) -> None:
    """Store deleted users; those that are stored already stay as they are."""
    rows = [{"id": user_id} for user_id in sorted(set(user_ids))]
    if rows:
        session.execute(insert(table).values(rows).on_conflict_do_nothing())


def lock_due(
    session: Session, table: Table, *, only: Sequence[UUID] | None = None, without: Sequence[UUID] = ()
) -> Sequence[DeletedUser]:
    """Lock and return the users whose records are to be checked, at most BATCH, without those that are locked."""
    # statement_timestamp() is constant during the statement, so the index can be used.
    due = select(table.c.id).where(table.c.check_at <= func.statement_timestamp())
    if only is not None:
        due = due.where(table.c.id.in_(only))
    if without:
        due = due.where(table.c.id.not_in(without))
    return session.execute(due.order_by(table.c.check_at).limit(BATCH).with_for_update(skip_locked=True)).all()


def postpone(session: Session, table: Table, user_ids: Sequence[UUID]) -> None:
    """Record that the records of these users were checked, and when the next check is due; delete the oldest users."""
    now, age = func.clock_timestamp(), func.clock_timestamp() - table.c.deleted_at
    steps = [(age < after, table.c.deleted_at + after) for after in CHECKS]
    mine = table.c.id.in_(user_ids)
    session.execute(update(table).where(mine).values(check_at=case(*steps, else_=now + DAILY)))
    session.execute(delete(table).where(mine, age > KEPT))
