"""Cursor pagination: pages stay correct while rows are inserted."""

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from contracts.errors import ValidationFailed

MAX_NUMBER = 10**12


def fetch_page(
    session: Session,
    statement: Select[Any],
    *,
    keys: Sequence[InstrumentedAttribute[Any]],
    limit: int,
    cursor: str | None,
    descending: bool = True,
) -> tuple[list[Any], str | None]:
    """Return one page of the entities that `statement` selects, and the cursor of the next one (None at the end).

    `keys` are the columns to sort by; together they must be unique. Raises ValidationFailed for a cursor that
    does not belong to this list.
    """
    mark = mark_of(keys, descending)
    if cursor is not None:
        given, _, position = cursor.partition(".")
        types = [key.type.python_type for key in keys]
        after = tuple_(*decode_position(position if given == mark else "", types))
        statement = statement.where(tuple_(*keys) < after if descending else tuple_(*keys) > after)
    order = [key.desc() if descending else key.asc() for key in keys]
    rows = list(session.scalars(statement.order_by(*order).limit(limit + 1)))
    if len(rows) <= limit:
        return rows, None
    rows.pop()
    return rows, f"{mark}.{encode_position([getattr(rows[-1], key.key) for key in keys])}"


def equal_in_order(column: InstrumentedAttribute[Any], value: Any) -> ColumnElement[bool]:
    """Return the SQL condition that `column` equals `value`, for a page whose first key is `column`.

    With `=`, PostgreSQL drops the column from the sort order. For a frequent value it may then scan an index on the
    other keys and skip all rows with other values. BETWEEN keeps the column in the order, so that the index on all keys
    is used.
    """
    return column.between(value, value)


def mark_of(keys: Sequence[InstrumentedAttribute[Any]], descending: bool) -> str:
    """Return a short hash of the keys and the direction. A cursor of another list has another hash."""
    name = f"{[str(key) for key in keys]} {descending}"
    return hashlib.sha256(name.encode()).hexdigest()[:8]


def encode_position(values: Sequence[Any]) -> str:
    """Return the values of a row's keys as a part of a cursor."""
    plain = [value.isoformat() if isinstance(value, datetime) else str(value) for value in values]
    text = json.dumps(plain, ensure_ascii=False)  # short, because it becomes part of a URL
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_position(position: str, types: Sequence[type]) -> list[Any]:
    """Return the values of `encode_position`. Raises ValidationFailed if it is not a position with these types."""
    try:
        values = json.loads(base64.urlsafe_b64decode(position + "=" * (-len(position) % 4)))
        if not isinstance(values, list) or len(values) != len(types):
            raise ValueError(position)
        return [_PARSERS[kind](str(value)) for kind, value in zip(types, values, strict=True)]
    except (ValueError, ArithmeticError, RecursionError):
        raise invalid_cursor() from None


def invalid_cursor() -> ValidationFailed:
    """Return the error for a cursor that does not belong to the list."""
    return ValidationFailed.field("cursor", "is not a cursor that this list gave out")


def _instant(text: str) -> datetime:
    value = datetime.fromisoformat(text)
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def _number(text: str) -> Decimal:
    value = Decimal(text)
    if not value.is_finite() or abs(value) > MAX_NUMBER or value != round(value, 2):
        raise ValueError(text)
    return round(value, 2)


def _integer(text: str) -> int:
    value = int(text)
    _number(text)
    return value


def _text(text: str) -> str:
    text.encode()  # fails for a lone surrogate; PostgreSQL rejects NUL too
    if "\x00" in text:
        raise ValueError(text)
    return text


# A cursor is client input: values that the database cannot compare are rejected here.
_PARSERS: dict[type, Callable[[str], Any]] = {
    datetime: _instant,
    Decimal: _number,
    UUID: UUID,
    str: _text,
    int: _integer,
}
