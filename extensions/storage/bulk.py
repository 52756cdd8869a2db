"""Bulk inserts and updates by one statement.

The rows are passed as arrays, so the text of the statement is the same for any number of rows and is compiled once.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import JSON, Row, String, Table, TextClause, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine


def insert_rows(
    session: Session,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    *,
    on_conflict: str = "",
    returning: tuple[str, ...] = (),
) -> Sequence[Row[Any]]:
    """Insert `rows` in their order; all have the same columns. `on_conflict` is the SQL after ON CONFLICT.

    The server defaults of the table apply, the Python defaults of the model do not. Returns the columns `returning` of
    the inserted rows.
    """
    if not rows:
        return ()
    columns = tuple(rows[0])
    return _executed(session, _insertion(table, columns, on_conflict), table, columns, rows, returning)


def update_rows(
    session: Session,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    *,
    key: str = "id",
    returning: tuple[str, ...] = (),
) -> Sequence[Row[Any]]:
    """Update the rows of `table` that have the `key` of a row in `rows`; sets updated_at too.

    All rows have the same columns. Objects that the session has loaded before are not refreshed. Returns the columns
    `returning` of the updated rows, in no particular order.
    """
    if not rows:
        return ()
    columns = tuple(rows[0])
    return _executed(session, _update(table, key, columns), table, columns, rows, returning)


def update_and_insert(
    session: Session,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    other: Table,
    others: Sequence[Mapping[str, Any]],
    *,
    key: str = "id",
) -> None:
    """Update `rows` of `table` and insert `others` into the table `other`, in one round trip.

    As `update_rows` and `insert_rows`. No column may be in both.
    """
    if not rows or not others:
        update_rows(session, table, rows, key=key)
        insert_rows(session, other, others)
        return
    updated, inserted = tuple(rows[0]), tuple(others[0])
    values = _arrays(table, updated, rows) | _arrays(other, inserted, others)
    session.execute(_update_and_insertion(table, key, updated, other, inserted), values)


def _executed(
    session: Session,
    statement: TextClause,
    table: Table,
    columns: tuple[str, ...],
    rows: Sequence[Mapping[str, Any]],
    returning: tuple[str, ...],
) -> Sequence[Row[Any]]:
    values = _arrays(table, columns, rows)
    if not returning:
        session.execute(statement, values)
        return ()
    return session.execute(_returning(statement, table, returning), values).all()


def _arrays(table: Table, columns: tuple[str, ...], rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the values of `rows` by column, in the form that psycopg2 expects."""
    arrays = {column: [row[column] for row in rows] for column in columns}
    for column in columns:
        if isinstance(table.c[column].type, JSON):
            arrays[column] = [json.dumps(value, default=str) for value in arrays[column]]
    return arrays


@lru_cache
def _insertion(table: Table, columns: tuple[str, ...], on_conflict: str) -> TextClause:
    return text(
        f"INSERT INTO {table.name} ({', '.join(columns)}) SELECT * FROM {_unnested(table, columns)}"  # noqa: S608  (our own names)
        + (f" ON CONFLICT {on_conflict}" if on_conflict else "")
    )


@lru_cache
def _update(table: Table, key: str, columns: tuple[str, ...]) -> TextClause:
    changes = ", ".join(f"{column} = after.{column}" for column in columns if column != key)
    return text(
        f"UPDATE {table.name} SET {changes}, updated_at = clock_timestamp()"  # noqa: S608  (our own names)
        f" FROM {_unnested(table, columns)} AS after ({', '.join(columns)}) WHERE {table.name}.{key} = after.{key}"
    )


@lru_cache
def _update_and_insertion(
    table: Table, key: str, updated: tuple[str, ...], other: Table, inserted: tuple[str, ...]
) -> TextClause:
    if both := set(updated) & set(inserted):
        message = f"both {table.name} and {other.name} have {', '.join(sorted(both))}: the parameters would be the same"
        raise ValueError(message)
    return text(f"WITH inserted AS ({_insertion(other, inserted, '').text}) {_update(table, key, updated).text}")


@lru_cache
def _returning(statement: TextClause, table: Table, columns: tuple[str, ...]) -> Any:
    names = ", ".join(f"{table.name}.{column}" for column in columns)
    return text(f"{statement.text} RETURNING {names}").columns(*(table.c[column] for column in columns))


def _unnested(table: Table, columns: tuple[str, ...]) -> str:
    dialect = postgresql.dialect()
    types = (_without_collation(table.c[column].type).compile(dialect=dialect) for column in columns)
    casts = (f"CAST(:{column} AS {kind}[])" for column, kind in zip(columns, types, strict=True))
    return f"unnest({', '.join(casts)})"


def _without_collation(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    """Return the type of a value: a collation belongs to a column, and PostgreSQL has no arrays of it."""
    return kind.adapt(type(kind), collation=None) if isinstance(kind, String) else kind
