"""The fields of a message as values that PostgreSQL can store, also for invalid messages."""

import math
from typing import Any

MAX_HEADER_DEPTH = 8


def plain_headers(headers: dict[str, Any] | None) -> dict[str, Any]:
    """Return a message's headers as JSON that PostgreSQL accepts."""
    return {plain_text(name): _plain(value, MAX_HEADER_DEPTH) for name, value in (headers or {}).items()}


def plain_text(value: Any) -> Any:
    """Return `value` as text that PostgreSQL accepts: without NUL and surrogates. None stays None."""
    if value is None:
        return None
    text = bytes(value).decode("utf-8", "backslashreplace") if isinstance(value, bytes | memoryview) else str(value)
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()


def plain_count(value: Any) -> int:
    """Return `value` if it is a positive integer, else 0."""
    return value if isinstance(value, int) and value > 0 else 0


def _plain(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if depth and isinstance(value, dict):
        return {plain_text(name): _plain(one, depth - 1) for name, one in value.items()}
    if depth and isinstance(value, list | tuple):
        return [_plain(one, depth - 1) for one in value]
    if isinstance(value, dict | list | tuple):
        return "(nested too deep)"
    if isinstance(value, float) and math.isfinite(value):
        return value
    return plain_text(value)
