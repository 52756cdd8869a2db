"""Durable work items: work that calls something outside of the service, which may be slow, fail or never respond.

An item is one row, inserted in the transaction that makes the work necessary. A runner (work_items_runner.py) claims
due items under a lease and executes each outside of any transaction. It records the result in a second transaction,
which checks that the lease is still valid. There is one item for each `key`, so the work on one thing is serial. A
finished item is deleted.

    key              the thing that the work is about, such as a payment's id
    kind             which pool of the runner executes it
    state            WAITING, or ABANDONED after the last attempt; an abandoned item is kept for the operators
    attempts         attempts that have begun
    next_attempt_at  when it is due; under a lease, when the lease ends and others may claim it
    lease            an id that each claim creates; NULL while no process executes the item
    lease_owner      the process that executes the item
    last_error       why the latest attempt failed
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Column, DateTime, Index, Integer, MetaData, Table, Text, Uuid, func, select, text
from sqlalchemy.orm import Session

from contracts.ids import new_id
from extensions.storage.collations import KEY_COLLATION
from extensions.storage.tables import DELETABLE

TABLE = "work_items"
MAX_ERROR = 500
MAX_COUNTED = 10_000
FAILING_ATTEMPTS = 3
"""An item with more attempts than this is counted as failing."""


class State(StrEnum):
    """Whether further attempts will be made."""

    WAITING = "WAITING"
    ABANDONED = "ABANDONED"


@dataclass(frozen=True, slots=True)
class Item:
    """A claimed item. Its result may be recorded as long as its row still has this `lease`."""

    key: str
    kind: str
    attempts: int
    lease: UUID


@dataclass(frozen=True, slots=True)
class FailedExecution:
    """The execution of a request that ended with an error."""

    request: Any
    error: BaseException
    began_at: datetime
    duration: timedelta


@dataclass(frozen=True, slots=True)
class Later:
    """A step of an item that is due after `seconds`. A plain kind instead of it means now."""

    kind: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed attempt. The next one is due after `pause` seconds; if the item is `abandoned`, there is none."""

    item: Item
    error: str
    pause: float
    abandoned: bool = False
    attempt: FailedExecution | None = None
    """None if the request was not executed, or its outcome could not be recorded."""


def define(metadata: MetaData) -> Table:
    """Add the table to a service's metadata."""
    table = Table(
        TABLE,
        metadata,
        Column("key", Text(collation=KEY_COLLATION), primary_key=True),
        Column("kind", Text, nullable=False),
        Column("state", Text, nullable=False, server_default=State.WAITING),
        Column("attempts", Integer, nullable=False, server_default="0"),
        Column("next_attempt_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
        Column("lease", Uuid),
        Column("lease_owner", Text),
        Column("last_error", Text),
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
        info=DELETABLE,
    )
    Index(None, table.c.kind, table.c.next_attempt_at)
    return table


def create_table(op: Any) -> None:
    """Create the table in a migration."""
    now = sa.func.clock_timestamp()
    op.create_table(
        TABLE,
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False, server_default="WAITING"),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=False, server_default=now),
        sa.Column("lease", sa.Uuid),
        sa.Column("lease_owner", sa.Text),
        sa.Column("last_error", sa.Text),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=now),
        sa.PrimaryKeyConstraint("key", name="pk_work_items"),
    )
    op.create_index("ix_work_items_kind_next_attempt_at", TABLE, ["kind", "next_attempt_at"])


# With arrays as parameters, the text of a statement is the same for any number of items, so it is compiled once.
_SCHEDULE = text(
    """
    INSERT INTO work_items (key, kind, next_attempt_at)
    SELECT key, kind, clock_timestamp() + make_interval(secs => pause)
    FROM unnest(CAST(:keys AS text[]), CAST(:kinds AS text[]), CAST(:pauses AS double precision[]))
      AS next (key, kind, pause)
    ON CONFLICT (key) DO UPDATE
    SET kind = excluded.kind, state = 'WAITING', attempts = 0,
        next_attempt_at = LEAST(work_items.next_attempt_at, excluded.next_attempt_at)
    WHERE work_items.lease IS NULL
    """
)
# statement_timestamp() is constant during the statement, so the index can be used. A due time beyond the horizon was
# written before the database's clock was set back; such an item is due. First and further attempts have separate
# limits, so that failing items never delay new ones.
_DUE = """
    SELECT key FROM work_items
    WHERE kind = :kind AND state = 'WAITING' AND attempts {which}
      AND (next_attempt_at <= statement_timestamp()
           OR next_attempt_at > statement_timestamp() + make_interval(secs => :horizon))
    ORDER BY next_attempt_at LIMIT :{limit} FOR UPDATE SKIP LOCKED
"""
_CLAIM = text(
    f"""
    WITH fresh AS ({_DUE.format(which="= 0", limit="fresh")}), again AS ({_DUE.format(which="> 0", limit="again")})
    UPDATE work_items
    SET attempts = attempts + 1, lease = :lease, lease_owner = :owner,
        next_attempt_at = clock_timestamp() + make_interval(secs => :seconds)
    FROM (SELECT key FROM fresh UNION ALL SELECT key FROM again) AS due
    WHERE work_items.key = due.key
    RETURNING work_items.key, work_items.attempts
    """  # noqa: S608  (our own names)
)
_HELD = """
    SELECT work_items.key FROM work_items
    JOIN unnest(CAST(:keys AS text[]), CAST(:leases AS uuid[])) AS held (key, lease)
      ON work_items.key = held.key AND work_items.lease = held.lease
"""
_LOCK_HELD = text(f"{_HELD} FOR UPDATE OF work_items SKIP LOCKED")
_READ_HELD = text(_HELD)
_FINISH = text("DELETE FROM work_items WHERE key = ANY(CAST(:keys AS text[]))")
_CONTINUE = text(
    """
    UPDATE work_items
    SET kind = next.kind, attempts = 0, lease = NULL, lease_owner = NULL, last_error = NULL,
        next_attempt_at = clock_timestamp() + make_interval(secs => next.pause)
    FROM unnest(CAST(:keys AS text[]), CAST(:kinds AS text[]), CAST(:pauses AS double precision[]))
      AS next (key, kind, pause)
    WHERE work_items.key = next.key
    """
)
_POSTPONE = text(
    """
    UPDATE work_items
    SET state = failed.state, last_error = failed.error, lease = NULL, lease_owner = NULL,
        next_attempt_at = clock_timestamp() + make_interval(secs => failed.pause)
    FROM unnest(CAST(:keys AS text[]), CAST(:leases AS uuid[]), CAST(:states AS text[]), CAST(:errors AS text[]),
                CAST(:pauses AS double precision[])) AS failed (key, lease, state, error, pause)
    WHERE work_items.key = failed.key AND work_items.lease = failed.lease
    """
)
_RELEASE = text(
    """
    UPDATE work_items
    SET attempts = work_items.attempts - 1, next_attempt_at = clock_timestamp(), lease = NULL, lease_owner = NULL
    FROM unnest(CAST(:keys AS text[]), CAST(:leases AS uuid[])) AS held (key, lease)
    WHERE work_items.key = held.key AND work_items.lease = held.lease
    """
)


def schedule(session: Session, steps: Mapping[str, str | Later]) -> None:
    """Insert an item for each key; `steps` maps each key to a kind, due now, or to a Later.

    An item that exists already becomes due then, if it is not due sooner. If it is being executed it is left unchanged:
    whoever records its result also decides its next step (`continue_with`). That transaction and this one cannot both
    miss what the other writes, because each locks the item's row first.
    """
    if steps:
        session.execute(_SCHEDULE, _steps({key: steps[key] for key in sorted(steps)}))


def claim(
    session: Session, kind: str, owner: str, *, fresh: int, again: int, seconds: float, longest_pause: float
) -> list[Item]:
    """Claim due items for `seconds`: up to `fresh` items for a first attempt, and up to `again` for a further attempt.

    Locked rows are skipped. `longest_pause` is the longest time for which items of this kind are postponed.
    """
    lease = new_id()
    horizon = max(seconds, longest_pause) + 1.0
    values = {"kind": kind, "owner": owner, "lease": lease, "fresh": fresh, "again": again, "seconds": seconds}
    rows = session.execute(_CLAIM, values | {"horizon": horizon})
    return [Item(key, kind, attempts, lease) for key, attempts in rows]


def lock_held(session: Session, items: Sequence[Item]) -> tuple[set[str], set[str]]:
    """Lock the items that still have their lease, without waiting for other transactions.

    Returns the keys of the locked items, and the keys of those that another transaction has locked. Items in neither
    set have lost their lease: another process claimed them, or they are finished.
    """
    held = _keys_and_leases(items)
    locked = set(session.scalars(_LOCK_HELD, held))
    if len(locked) == len(items):
        return locked, set()
    return locked, set(session.scalars(_READ_HELD, held)) - locked


def finish(session: Session, keys: Iterable[str]) -> None:
    """Delete items whose work is done. The caller holds their leases."""
    if done := sorted(keys):
        session.execute(_FINISH, {"keys": done})


def continue_with(session: Session, steps: Mapping[str, str | Later]) -> None:
    """Give items their next step: a kind, due now, or a Later. The caller holds their leases."""
    if steps:
        session.execute(_CONTINUE, _steps(steps))


def postpone(session: Session, failures: Sequence[Failure]) -> None:
    """Record failed attempts, and end their leases. Items that have lost their lease are left unchanged."""
    if failures:
        values = {
            "states": [State.ABANDONED if each.abandoned else State.WAITING for each in failures],
            "errors": [each.error.replace("\x00", "")[:MAX_ERROR] for each in failures],
            "pauses": [each.pause for each in failures],
        }
        session.execute(_POSTPONE, _keys_and_leases([each.item for each in failures]) | values)


def release(session: Session, items: Sequence[Item]) -> None:
    """End leases as if the items had never been claimed, because the process stops."""
    if items:
        session.execute(_RELEASE, _keys_and_leases(items))


def backlog(session: Session, table: Table) -> dict[str, tuple[int, int, float]]:
    """Return for each kind: the number of items, how many fail or are abandoned, and the age of the oldest in seconds.

    At most MAX_COUNTED items are counted.
    """
    waiting = select(table.c.kind, table.c.attempts, table.c.created_at).limit(MAX_COUNTED).subquery()
    failing = func.count().filter(waiting.c.attempts > FAILING_ATTEMPTS)
    age = func.extract("epoch", func.clock_timestamp() - func.min(waiting.c.created_at))
    rows = session.execute(select(waiting.c.kind, func.count(), failing, age).group_by(waiting.c.kind))
    return {kind: (count, failed, max(0.0, float(oldest))) for kind, count, failed, oldest in rows}


def _steps(steps: Mapping[str, str | Later]) -> dict[str, list[Any]]:
    found = [step if isinstance(step, Later) else Later(step, 0.0) for step in steps.values()]
    return {
        "keys": list(steps),
        "kinds": [step.kind for step in found],
        "pauses": [step.seconds for step in found],
    }


def _keys_and_leases(items: Sequence[Item]) -> dict[str, list[Any]]:
    return {"keys": [item.key for item in items], "leases": [item.lease for item in items]}
