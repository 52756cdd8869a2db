"""Validates the file of an import, and copies its valid rows into the staging table: a process of its own.

    python -m extensions.storage.import_stage <import id> contracts.catalog:CreateProduct sku

The address of the database is in IMPORT_DATABASE_URL. It is a process and no thread for two reasons. psycopg2 refuses
COPY in a process in which greenlets wait for PostgreSQL. And the validation of 100,000 rows takes seconds of a
processor, in which the service could do nothing else. The last arguments are the model of a row,
and the fields that identify it.

Whenever it ends early, the next run begins again: it commits nothing but the rows and counts of this import.
"""

import importlib
import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg2
from pydantic import BaseModel

from contracts.imports import MAX_ERRORS
from extensions.storage.import_files import Row, rows_of

ROWS_PER_COPY = 2_000
STATEMENT_TIMEOUT = "-c statement_timeout=120s -c lock_timeout=10s -c idle_in_transaction_session_timeout=60s"
# COPY's text format.
_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})
DUPLICATES = """
    SELECT line, first FROM (
        SELECT line, min(line) OVER (PARTITION BY key) AS first FROM import_rows WHERE import_id = %s
    ) AS rows WHERE line <> first ORDER BY line
"""
REMOVE_DUPLICATES = """
    DELETE FROM import_rows USING (
        SELECT line, min(line) OVER (PARTITION BY key) AS first FROM import_rows WHERE import_id = %(id)s
    ) AS rows WHERE import_rows.import_id = %(id)s AND import_rows.line = rows.line AND rows.line <> rows.first
"""
END = """
    UPDATE imports SET staged = %(staged)s, failed = %(failed)s, errors = %(errors)s, updated_at = clock_timestamp(),
        status = CASE WHEN mode = 'all_or_nothing' AND %(failed)s > 0 THEN 'REJECTED' ELSE 'MERGING' END
    WHERE id = %(id)s
"""


class Stage:
    """One run of the stage."""

    def __init__(self, connection: Any, import_id: str, model: type[BaseModel], keys: tuple[str, ...]) -> None:
        self._connection, self._id, self._model, self._keys = connection, import_id, model, keys
        self._staged = self._failed = 0
        self._errors: list[dict[str, Any]] = []

    def run(self) -> None:
        """Stage all rows, and commit the result."""
        with self._connection, self._connection.cursor() as cursor:
            cursor.execute("DELETE FROM import_rows WHERE import_id = %s", [self._id])
            cursor.execute("SELECT format FROM imports WHERE id = %s", [self._id])
            (file_format,) = cursor.fetchone()
        batch: list[str] = []
        for row in rows_of(file_format, self._chunks(), self._model):
            line = self._copied(row)
            if line:
                batch.append(line)
            if len(batch) == ROWS_PER_COPY:
                self._copy(batch)
                batch = []
        self._copy(batch)
        self._end()

    def _chunks(self) -> Iterator[str]:
        number = 0
        while True:
            with self._connection.cursor() as cursor:
                cursor.execute(
                    "SELECT text FROM import_chunks WHERE import_id = %s AND number = %s", [self._id, number]
                )
                found = cursor.fetchone()
            if found is None:
                return
            yield found[0]
            number += 1

    def _copied(self, row: Row) -> str | None:
        """Return a line for COPY; None for a row with errors, which are kept."""
        if row.values is None:
            self._failed += 1
            self._add_errors(row.line, [(error.field, error.message) for error in row.errors])
            return None
        self._staged += 1
        key = next((str(row.values[name]).lower() for name in self._keys if row.values.get(name)), "")
        data = json.dumps(row.values, ensure_ascii=False)
        return "\t".join([self._id, str(row.line), key.translate(_ESCAPES), data.translate(_ESCAPES)]) + "\n"

    def _add_errors(self, line: int, errors: list[tuple[str, str]]) -> None:
        found = [{"line": line, "field": field, "message": message} for field, message in errors]
        self._errors += found[: MAX_ERRORS - len(self._errors)]

    def _copy(self, batch: list[str]) -> None:
        with self._connection, self._connection.cursor() as cursor:
            if batch:
                cursor.copy_expert(
                    "COPY import_rows (import_id, line, key, data) FROM STDIN", io.StringIO("".join(batch))
                )
            cursor.execute(
                "UPDATE imports SET staged = %s, failed = %s, updated_at = clock_timestamp() WHERE id = %s",
                [self._staged, self._failed, self._id],
            )

    def _end(self) -> None:
        with self._connection, self._connection.cursor() as cursor:
            cursor.execute(DUPLICATES, [self._id])
            for line, first in cursor:
                self._failed, self._staged = self._failed + 1, self._staged - 1
                self._add_errors(line, [(self._keys[0], f"is the same as in line {first}")])
            cursor.execute(REMOVE_DUPLICATES, {"id": self._id})
            errors = sorted(self._errors, key=lambda error: error["line"])
            counts = {"id": self._id, "staged": self._staged, "failed": self._failed}
            cursor.execute(END, counts | {"errors": json.dumps(errors)})
            cursor.execute("DELETE FROM import_chunks WHERE import_id = %s", [self._id])


def main(import_id: str, model_path: str, *keys: str) -> int:
    """The command line."""
    module, _, name = model_path.partition(":")
    model = getattr(importlib.import_module(module), name)
    url = os.environ["IMPORT_DATABASE_URL"].replace("+psycopg2", "")
    with closing(psycopg2.connect(url, connect_timeout=5, options=STATEMENT_TIMEOUT)) as connection:
        Stage(connection, import_id, model, keys).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
