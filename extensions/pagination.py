"""Cursor pagination: pages that stay right while rows are inserted."""

import base64
import binascii
import json
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from contracts.errors import ValidationFailed

_PARSERS: dict[type, Any] = {datetime: datetime.fromisoformat, Decimal: Decimal, UUID: UUID, str: str, int: int}


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

    `keys` are the columns to sort by; together they must be unique. Raises ValidationFailed for a foreign cursor.
    """
    if cursor is not None:
        after = tuple_(*_decode(cursor, keys))
        statement = statement.where(tuple_(*keys) < after if descending else tuple_(*keys) > after)
    order = [key.desc() if descending else key.asc() for key in keys]
    rows = list(session.scalars(statement.order_by(*order).limit(limit + 1)))
    if len(rows) <= limit:
        return rows, None
    rows.pop()
    return rows, _encode([getattr(rows[-1], key.key) for key in keys])


def _encode(values: Sequence[Any]) -> str:
    text = json.dumps([value.isoformat() if isinstance(value, datetime) else str(value) for value in values])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(cursor: str, keys: Sequence[InstrumentedAttribute[Any]]) -> list[Any]:
    try:
        values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if not isinstance(values, list) or len(values) != len(keys) or "\x00" in "".join(map(str, values)):
            raise ValueError(cursor)
        return [_PARSERS[key.type.python_type](str(value)) for key, value in zip(keys, values, strict=True)]
    except (ValueError, ArithmeticError, binascii.Error, RecursionError):
        raise ValidationFailed.field("cursor", "is not a cursor that this list gave out") from None
