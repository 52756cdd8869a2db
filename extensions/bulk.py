"""One UPDATE for many rows, each with values of its own."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase, Session


def update_rows(
    session: Session, model: type[DeclarativeBase], rows: Sequence[Mapping[str, Any]], *, key: str = "id"
) -> None:
    """Give the row of `model` with each one's `key` its other values, and note when.

    All rows have the same columns. Nothing of this is seen by objects that the session has loaded before.
    """
    if rows:
        columns = tuple(rows[0])
        values = {column: [row[column] for row in rows] for column in columns}
        session.execute(_statement(model, key, columns), values)


@lru_cache
def _statement(model: type[DeclarativeBase], key: str, columns: tuple[str, ...]) -> TextClause:
    # With arrays the text is the same however many rows there are: it is compiled once, not for each batch.
    types = {column: model.__table__.c[column].type.compile(dialect=postgresql.dialect()) for column in columns}
    arrays = ", ".join(f"CAST(:{column} AS {kind}[])" for column, kind in types.items())
    changes = ", ".join(f"{column} = after.{column}" for column in columns if column != key)
    name = model.__tablename__
    return text(
        f"UPDATE {name} SET {changes}, updated_at = clock_timestamp()"  # noqa: S608  (names of our own)
        f" FROM unnest({arrays}) AS after ({', '.join(columns)}) WHERE {name}.{key} = after.{key}"
    )
