"""Bulk imports of a service: receives files, and works through them, one at a time.

An import is RECEIVING while its chunks arrive, then QUEUED. `work_on` claims it under a lease. It is VALIDATING while a
process of its own stages the valid rows (import_stage.py), and MERGING while its rows are merged, some in each
transaction. A row is deleted in the transaction that merges it. So after a crash, whichever process claims the import
next continues it.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import eventlet
from eventlet.green import subprocess
from nameko import config
from sqlalchemy import and_, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from contracts.base import Actor, Cause, Json, StoredCause
from contracts.errors import IdempotencyKeyInUse, ValidationFailed
from contracts.ids import new_id
from contracts.imports import (
    MAX_ERRORS,
    BeginImport,
    BegunImport,
    EndOfImport,
    ImportChunk,
    ImportComplete,
    ImportLookup,
    ImportNotFound,
    ImportProgress,
    ImportsProgress,
    ImportView,
)
from extensions.observability.traces import current_trace
from extensions.storage.import_tables import CHUNKS, IMPORTS, ROWS

log = logging.getLogger(__name__)

ROWS_PER_MERGE = 500
# Rows that are merged in one transaction, whose locks delay others.
MOST_AT_ONCE = 10_000
LEASE_SECONDS, RENEW_SECONDS, POLL_SECONDS = 60.0, 5.0, 0.05
STAGE_SECONDS = 600.0
# Of the validation, or of one merge: attempts are counted from the last progress.
MOST_ATTEMPTS = 5
# So many events may wait in the outbox before the next rows are merged: an import does not delay other events for long.
MOST_WAITING_EVENTS = 5_000
PAUSE_SECONDS = 0.1
# A file that stopped arriving is deleted after this time.
RECEIVING = timedelta(hours=1)
IN_USE = timedelta(seconds=60)
SWEEP_SECONDS = 600.0
NOTHING = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class Merged:
    """What became of the rows of a merge. `errors` are (line, field, message) of rows that could not be merged."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    errors: Sequence[tuple[int, str, str]] = ()


@dataclass(frozen=True, slots=True)
class Claimed:
    """An import that this process works on."""

    id: UUID
    status: str
    mode: str
    actor: str
    cause: Cause


Merge = Callable[[Session, Claimed, Sequence[Any]], Merged]
"""Merges staged rows, each with `line`, `key` and `data`, in the transaction of the session."""


class Imports:
    """The imports of one service, as an object of its worker: `Imports(self.work, ...)`."""

    def __init__(self, work: Any, model: str, keys: Sequence[str]) -> None:
        """`model` is the class of a row, as `module:Class`; `keys` are the fields of which one identifies a row."""
        self._work, self._model, self._keys = work, model, keys
        self._imports, self._chunks, self._rows = (work.table(name) for name in (IMPORTS, CHUNKS, ROWS))

    # Receiving

    def begin(self, wanted: BeginImport, actor: Actor, key: str | None) -> Json[BegunImport]:
        """Begin an import, or return the one with this key. Raises IdempotencyKeyInUse while that still arrives."""
        session, owner = self._work.session, str(actor.user_id or "")
        if key is not None:
            same = and_(self._imports.c.actor == owner, self._imports.c.key == key)
            known = session.execute(select(self._imports).where(same).with_for_update()).one_or_none()
            if known is not None and known.status != "RECEIVING":
                return BegunImport(id=known.id, sha256=known.sha256).to_dict()
            if known is not None and session.scalar(select(func.clock_timestamp())) - known.updated_at < IN_USE:
                raise IdempotencyKeyInUse(retry_after=1)
            if known is not None:
                session.execute(delete(self._imports).where(self._imports.c.id == known.id))
        values = {
            "id": new_id(),
            "actor": owner,
            "key": key,
            "mode": wanted.mode,
            "format": wanted.format,
            "status": "RECEIVING",
            "headers": current_trace().headers,
        }
        begun = upsert(self._imports).values(values).on_conflict_do_nothing().returning(self._imports.c.id)
        if session.scalar(begun) is None:
            raise IdempotencyKeyInUse(retry_after=1)
        return BegunImport(id=values["id"], sha256=None).to_dict()

    def add_chunk(self, import_id: UUID, chunk: ImportChunk) -> None:
        """Store a chunk. Raises ImportNotFound, ImportComplete, ValidationFailed for text that cannot be stored."""
        if "\0" in chunk.text:
            raise ValidationFailed.field("body", "contains the character NUL")
        self._require_receiving(import_id)
        row = upsert(self._chunks).values(import_id=import_id, number=chunk.number, text=chunk.text)
        self._work.session.execute(
            row.on_conflict_do_update(index_elements=["import_id", "number"], set_={"text": row.excluded.text})
        )

    def finish(self, import_id: UUID, end: EndOfImport) -> Json[ImportView]:
        """Queue the import. Raises ImportNotFound, ImportComplete, ValidationFailed if chunks are missing."""
        self._require_receiving(import_id)
        session = self._work.session
        of_import = self._chunks.c.import_id == import_id
        if session.scalar(select(func.count()).select_from(self._chunks).where(of_import)) != end.chunks:
            raise ValidationFailed.field("body", "did not arrive completely; send it again")
        self._set(session, import_id, status="QUEUED", sha256=end.sha256)
        return self.get(import_id)

    def get(self, import_id: UUID) -> Json[ImportView]:
        """Return an import. Raises ImportNotFound."""
        found = self._work.session.execute(select(self._imports).where(self._imports.c.id == import_id)).one_or_none()
        if found is None:
            raise ImportNotFound
        return ImportView.model_validate(found).to_dict()

    def get_progress(self, wanted: ImportLookup) -> Json[ImportsProgress]:
        """Return the progress of several imports."""
        fields = [self._imports.c[name] for name in ImportProgress.model_fields]
        found = self._work.session.execute(select(*fields).where(self._imports.c.id.in_(wanted.import_ids)))
        return ImportsProgress(items=tuple(ImportProgress.model_validate(row) for row in found)).to_dict()

    def _require_receiving(self, import_id: UUID) -> None:
        now = func.clock_timestamp()
        mine = update(self._imports).where(self._imports.c.id == import_id).values(updated_at=now)
        status = self._work.session.scalar(mine.returning(self._imports.c.status))
        if status is None:
            raise ImportNotFound
        if status != "RECEIVING":
            raise ImportComplete

    def _set(self, session: Session, import_id: UUID, **values: Any) -> None:
        changed = update(self._imports).where(self._imports.c.id == import_id)
        session.execute(changed.values(updated_at=func.clock_timestamp(), **values))

    # Working

    def work_on(self, merge: Merge, stage_url: str, *, at_once: bool = False) -> None:
        """Work through the queued imports, until there are none. `at_once` merges all rows in one transaction."""
        while claimed := self._claim():
            try:
                if claimed.status != "MERGING":
                    self._stage(claimed, stage_url)
                self._merge_all(claimed, merge, at_once=at_once and claimed.mode == "all_or_nothing")
            finally:
                self._release(claimed)

    def sweep(self) -> None:
        """Delete imports that nobody finished, and old ones."""
        hours = float(config.get("IDEMPOTENCY_KEY_HOURS", 48))
        now, table = func.clock_timestamp(), self._imports
        unfinished = and_(table.c.status == "RECEIVING", table.c.updated_at < now - RECEIVING)
        is_over = table.c.status.in_(["DONE", "REJECTED", "FAILED"])
        old = and_(is_over, table.c.created_at < now - timedelta(hours=hours))
        self._work.session.execute(delete(table).where(or_(unfinished, old)))

    def _claim(self) -> Claimed | None:
        table, now = self._imports, func.clock_timestamp()
        others = table.alias()
        is_busy = select(others.c.id).where(others.c.lease_until >= now).exists()
        next_one = (
            select(table.c.id)
            .where(table.c.status.in_(["QUEUED", "VALIDATING", "MERGING"]), ~is_busy)
            .order_by(table.c.attempts, table.c.created_at)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        with self._work.transaction() as session:
            row = session.execute(
                update(table)
                .where(table.c.id == next_one.scalar_subquery())
                .values(lease_until=now + timedelta(seconds=LEASE_SECONDS), attempts=table.c.attempts + 1)
                .returning(table)
            ).one_or_none()
            if row is None:
                return None
            is_given_up = row.attempts > MOST_ATTEMPTS
            if is_given_up:
                self._fail(session, row)
        return self._claim() if is_given_up else _claimed(row)

    def _fail(self, session: Session, row: Any) -> None:
        text = f"the service could not process the file; {row.merged} rows are merged"
        errors = [{"line": 0, "field": "", "message": text}, *row.errors][:MAX_ERRORS]
        self._set(session, row.id, status="FAILED", errors=errors, lease_until=None)
        for table in (self._chunks, self._rows):
            session.execute(delete(table).where(table.c.import_id == row.id))

    def _release(self, claimed: Claimed) -> None:
        with self._work.transaction() as session:
            self._set(session, claimed.id, lease_until=None)

    def _renew(self, session: Session, claimed: Claimed, **values: Any) -> None:
        until = func.clock_timestamp() + timedelta(seconds=LEASE_SECONDS)
        self._set(session, claimed.id, lease_until=until, **values)

    def _stage(self, claimed: Claimed, url: str) -> None:
        """Run the stage in a process of its own. Raises ImportFailed."""
        with self._work.transaction() as session:
            self._renew(session, claimed, status="VALIDATING")
        command = [sys.executable, "-m", "extensions.storage.import_stage", str(claimed.id), self._model, *self._keys]
        process = subprocess.Popen(command, env={**os.environ, "IMPORT_DATABASE_URL": url}, stdin=subprocess.DEVNULL)
        try:
            end, renew = time.monotonic() + STAGE_SECONDS, time.monotonic() + RENEW_SECONDS
            while process.poll() is None:
                eventlet.sleep(POLL_SECONDS)
                if time.monotonic() > end:
                    raise ImportFailed(f"the stage of {claimed.id} took more than {STAGE_SECONDS} s")
                if time.monotonic() > renew:
                    renew = time.monotonic() + RENEW_SECONDS
                    with self._work.transaction() as session:
                        self._renew(session, claimed)
        finally:
            if process.poll() is None:
                process.kill()
        if process.returncode:
            raise ImportFailed(f"the stage of {claimed.id} ended with {process.returncode}")

    def _merge_all(self, claimed: Claimed, merge: Merge, *, at_once: bool) -> None:
        line: int | None = 0
        while line is not None:
            line = self._merge_some(claimed, merge, line, None if at_once else ROWS_PER_MERGE)
            while self._waiting_events() > MOST_WAITING_EVENTS:
                eventlet.sleep(PAUSE_SECONDS)

    def _waiting_events(self) -> int:
        outbox = self._work.table("outbox")
        some = select(outbox.c.id).limit(MOST_WAITING_EVENTS + 1).subquery()
        with self._work.transaction() as session:
            return int(session.scalar(select(func.count()).select_from(some)) or 0)

    def _merge_some(self, claimed: Claimed, merge: Merge, line: int, most: int | None) -> int | None:
        """Merge the next rows after `line`, in one transaction. Returns the line of the last; None if it is over.

        No earlier row is left. The line keeps PostgreSQL from reading over the entries of deleted rows.
        """
        rows, table = self._rows, self._imports
        with self._work.transaction() as session:
            current = session.execute(select(table).where(table.c.id == claimed.id).with_for_update()).one()
            if current.status != "MERGING":  # it is rejected
                session.execute(delete(rows).where(rows.c.import_id == claimed.id))
                return None
            of_import = select(rows).where(rows.c.import_id == claimed.id, rows.c.line > line)
            if most is None and current.staged > MOST_AT_ONCE:
                too_many = f"has {current.staged} rows, and at most {MOST_AT_ONCE} can be merged at once: use skip_bad"
                self._reject(session, current, Merged(errors=[(0, "", too_many)]))
                return None
            batch = session.execute(of_import.order_by(rows.c.line).limit(most)).all()
            if not batch:
                self._set(session, claimed.id, status="DONE")
                return None
            merged = merge(session, claimed, batch)
            if merged.errors and most is None:
                # Nothing was written: `merge` checks all rows first. So the import is rejected.
                self._reject(session, current, merged)
                return None
            last = int(batch[-1].line)
            session.execute(delete(rows).where(rows.c.import_id == claimed.id, rows.c.line.between(line + 1, last)))
            self._renew(session, claimed, attempts=1, **_counts(current, merged, len(batch)))
        return last

    def _reject(self, session: Session, current: Any, merged: Merged) -> None:
        counts = _counts(current, Merged(errors=merged.errors), 0)
        self._set(session, current.id, status="REJECTED", **counts)
        session.execute(delete(self._rows).where(self._rows.c.import_id == current.id))


class ImportFailed(Exception):
    """The process that stages an import ended without success; the import is tried again."""


def _claimed(row: Any) -> Claimed:
    cause = StoredCause(row.id, row.headers.get("x-request-id", ""), row.headers.get("traceparent", ""))
    return Claimed(row.id, row.status, row.mode, row.actor, cause)


def _counts(current: Any, merged: Merged, rows: int) -> dict[str, Any]:
    new = [{"line": line, "field": field, "message": message} for line, field, message in merged.errors]
    errors = sorted([*current.errors, *new], key=lambda error: error["line"])[:MAX_ERRORS]
    return {
        "merged": current.merged + rows,
        "created": current.created + merged.created,
        "updated": current.updated + merged.updated,
        "unchanged": current.unchanged + merged.unchanged,
        "failed": current.failed + len(merged.errors),
        "errors": errors,
    }
