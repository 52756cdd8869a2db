"""Strict JSON parsing: duplicate names, NaN, invalid UTF-8 and deep nesting are refused, so no input is ambiguous.

What a body costs must not depend on its content: more values than any request needs are refused before they are built.
"""

import json
from typing import Any

from contracts.errors import ValidationFailed
from extensions.http.message.errors import MalformedJson

MAX_DEPTH = 20
# The limit of values is checked by the number of commas. The longest text of a field may consist of commas, and has
# fewer.
MAX_VALUES = 10_000
# The limit of objects and lists. The largest request has a hundred lines.
MAX_CONTAINERS = 1000
# Python's message for what else has a better name. A first byte order mark is accepted.
WORDS = {"Unexpected UTF-8 BOM (decode using utf-8-sig)": "a second byte order mark"}


def parse_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in `body`. Raises MalformedJson, and ValidationFailed for JSON that is not an object."""
    if body.count(b",") > MAX_VALUES:
        raise _too_many()
    try:
        text = body.decode("utf-8-sig")  # some editors and tools write a byte order mark, which RFC 8259 lets us ignore
        if not text:
            raise MalformedJson("The body is empty. Send a JSON object.")
        value = json.loads(text, object_pairs_hook=_Objects().make, parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise MalformedJson("The body is not UTF-8.") from None
    except json.JSONDecodeError as error:
        words = WORDS.get(error.msg, error.msg)
        detail = f"The body is not valid JSON: {words} at line {error.lineno}, column {error.colno}."
        raise MalformedJson(detail) from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError:  # an integer with more digits than Python converts
        raise MalformedJson("The body has a number that is too long.") from None
    if body.count(b"{") + body.count(b"[") > MAX_DEPTH:
        _check_containers(value)
    if not isinstance(value, dict):
        raise ValidationFailed.field("", "must be a JSON object")
    if b"\\u" in body:
        _check_surrogates(value)
    return value


def dump(value: object) -> bytes:
    """Return `value` as compact JSON in UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


class _Objects:
    """Makes the objects of one body."""

    __slots__ = ("_count",)

    def __init__(self) -> None:
        self._count = 0

    def make(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        self._count += 1
        if self._count > MAX_CONTAINERS:
            raise _too_many()
        result = dict(pairs)
        if len(result) < len(pairs):
            raise MalformedJson(f"The body has the field {json.dumps(_repeated(pairs)[:100])} twice.")
        return result


def _repeated(pairs: list[tuple[str, Any]]) -> str:
    """Return the first duplicate name, in time linear in the number of names."""
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            return name
        seen.add(name)
    return ""


def _refuse_constant(name: str) -> Any:
    raise MalformedJson(f"The body has {name}, which is not JSON.")


def _too_deep() -> MalformedJson:
    return MalformedJson(f"The body is nested deeper than {MAX_DEPTH} levels.")


def _too_many() -> MalformedJson:
    return MalformedJson(f"The body has more than {MAX_VALUES} values, or {MAX_CONTAINERS} objects and lists.")


def _check_containers(value: object) -> None:
    """Walk level by level, because a recursive walk would exceed the recursion limit on deep input."""
    level, depth, count = _containers([value]), 0, 0
    while level:
        depth, count = depth + 1, count + len(level)
        if depth > MAX_DEPTH:
            raise _too_deep()
        if count > MAX_CONTAINERS:
            raise _too_many()
        level = [inner for outer in level for inner in _containers(outer)]


def _containers(outer: dict[str, Any] | list[Any]) -> list[Any]:
    inner = outer.values() if isinstance(outer, dict) else outer
    return [value for value in inner if isinstance(value, dict | list)]


def _check_surrogates(value: object) -> None:
    """Refuse a lone surrogate: UTF-8 cannot encode it, so no database can store it."""
    try:
        dump(value)
    except UnicodeEncodeError:
        raise MalformedJson(r"The body has half of a surrogate pair, such as \ud800.") from None
    except ValueError:  # 1e999 is parsed as infinity, which the type of its field refuses
        return
