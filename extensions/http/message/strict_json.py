"""JSON as we take it: strict, so that what a client meant and what we understood cannot differ."""

import json
from typing import Any

from contracts.errors import ValidationFailed
from extensions.http.message.errors import MalformedJson

MAX_DEPTH = 20


def parse_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in `body`. Raises MalformedJson, and ValidationFailed for JSON of another kind."""
    if not body:
        raise MalformedJson("The body is empty. Send a JSON object.")
    try:
        value = json.loads(body.decode(), object_pairs_hook=_object, parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise MalformedJson("The body is not UTF-8.") from None
    except json.JSONDecodeError as error:
        detail = f"The body is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        raise MalformedJson(detail) from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError:  # an integer of thousands of digits
        raise MalformedJson("The body has a number that is too long.") from None
    _check_depth(value)
    if not isinstance(value, dict):
        raise ValidationFailed.field("", "must be a JSON object")
    if b"\\u" in body:
        _check_surrogates(value)
    return value


def dump(value: object) -> bytes:
    """Return `value` as compact JSON in UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise MalformedJson(f"The body has the field {json.dumps(_repeated(pairs)[:100])} twice.")
    return result


def _repeated(pairs: list[tuple[str, Any]]) -> str:
    """Return the first name that has been there before; each is looked up once, however many there are."""
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


def _check_depth(value: object) -> None:
    """Walk level by level: a walk that calls itself would fall into the very trap that it is to find."""
    level, depth = _containers([value]), 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise _too_deep()
        level = [inner for outer in level for inner in _containers(outer)]


def _containers(outer: dict[str, Any] | list[Any]) -> list[Any]:
    inner = outer.values() if isinstance(outer, dict) else outer
    return [value for value in inner if isinstance(value, dict | list)]


def _check_surrogates(value: object) -> None:
    """Half a surrogate pair is a string that no database and no UTF-8 can hold."""
    try:
        dump(value)
    except UnicodeEncodeError:
        raise MalformedJson(r"The body has half of a surrogate pair, such as \ud800.") from None
    except ValueError:  # 1e999 became infinite: its field's type refuses it
        return
