"""Deletes old rows of the messaging tables, so that they stay bounded.

Correctness does not depend on these rows: the rules of the services also handle a duplicate whose inbox row was
deleted (qa/model explores every state without an inbox, too).
"""

import functools
import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from nameko import config
from sqlalchemy import ColumnElement, Delete, Table, any_, delete, func, literal_column, select

from extensions.runtime.steps import run_each

log = logging.getLogger(__name__)

# Rows per transaction: short transactions block nothing else.
BATCH = 5_000
# Bounds one run for one table.
MAX_BATCHES = 200

# Table: the column with the time from which a row's age counts, the setting for the maximum age, its default in hours.
RETENTION = {
    "inbox": ("created_at", "INBOX_HOURS", 48),
    "idempotency_keys": ("created_at", "IDEMPOTENCY_KEY_HOURS", 48),
    "dead_letters": ("replayed_at", "REPLAYED_DEAD_LETTER_HOURS", 720),
}


def delete_expired(work: Any) -> None:
    """Delete rows older than the settings allow; dead letters only if they were replayed.

    A table that is locked, or from which nothing can be deleted, stops none of the others. Its failure is raised.
    """
    run_each(functools.partial(_delete_expired, work, name) for name in RETENTION)


def _delete_expired(work: Any, name: str) -> None:
    column, setting, default = RETENTION[name]
    age = timedelta(hours=float(config.get(setting, default)))
    deleted = delete_older(work, work.table(name), column, age)
    if deleted:
        log.info("deleted %d rows of %s that were older than %s", deleted, name, age)


def delete_older(work: Any, table: Table, column: str, age: timedelta) -> int:
    """Delete the rows of which `column`, which has an index, is older than `age`, in batches. Returns their number."""
    # Neither query reads the rows that are kept: statement_timestamp() is the same for all rows, so the index on
    # `column` is used, and the locked rows are deleted by their physical position.
    position: ColumnElement[Any] = literal_column("ctid")
    old = select(position).select_from(table).where(table.c[column] < func.statement_timestamp() - age).limit(BATCH)
    # Another process may be deleting too: do not wait for its rows.
    found = old.with_for_update(skip_locked=True).scalar_subquery()
    return sum(delete_in_batches(work, delete(table).where(position == any_(func.array(found))), BATCH))


def delete_in_batches(work: Any, statement: Delete, batch: int) -> Iterator[int]:
    """Execute a DELETE of at most `batch` rows until nothing is left, each time in a transaction of its own.

    Yields the number of rows that each has deleted. Stops after MAX_BATCHES; the next run deletes the rest.
    """
    for _ in range(MAX_BATCHES):
        with work.transaction() as session:
            deleted: int = session.execute(statement).rowcount
        yield deleted
        if deleted < batch:
            return
