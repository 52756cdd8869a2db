"""How long messaging remembers, so that its tables stay bounded.

Nothing's correctness hangs on these rows: a duplicate that the inbox has forgotten meets rules that know what has been
done for its order (qa/model explores every state without an inbox, too).
"""

import logging
from datetime import timedelta
from typing import Any

from nameko import config
from sqlalchemy import ColumnElement, Table, any_, delete, func, literal_column, select

log = logging.getLogger(__name__)

# So many rows in a transaction: short ones hold up nobody.
BATCH = 5_000
# Bounds one run; what is left over waits for the next.
MAX_BATCHES = 200

# Table: the column that says how old a row is, the setting that says how old it may get, and its default in hours.
KEPT = {
    "inbox": ("created_at", "INBOX_HOURS", 48),
    "idempotency_keys": ("created_at", "IDEMPOTENCY_KEY_HOURS", 48),
    "dead_letters": ("replayed_at", "REPLAYED_DEAD_LETTER_HOURS", 720),
}


def forget(work: Any) -> None:
    """Delete what is older than the settings say; dead letters only once they were replayed."""
    for name, (column, setting, default) in KEPT.items():
        age = timedelta(hours=float(config.get(setting, default)))
        deleted = _delete_older(work, work.table(name), column, age)
        if deleted:
            log.info("forgot %d rows of %s that were older than %s", deleted, name, age)


def _delete_older(work: Any, table: Table, column: str, age: timedelta) -> int:
    # Neither of the two reads what is kept: the time is the same for all rows, so that the index on it serves, and the
    # rows are deleted where they lie, which a lock on each keeps true.
    place: ColumnElement[Any] = literal_column("ctid")
    old = select(place).select_from(table).where(table.c[column] < func.statement_timestamp() - age).limit(BATCH)
    # Another process may be doing the same: never wait for its rows.
    found = old.with_for_update(skip_locked=True).scalar_subquery()
    statement = delete(table).where(place == any_(func.array(found)))
    total = 0
    for _ in range(MAX_BATCHES):
        with work.transaction() as session:
            deleted = session.execute(statement).rowcount
        total += deleted
        if deleted < BATCH:
            break
    return total
