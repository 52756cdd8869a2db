"""Media types: whether a client accepts a response, and whether a body is JSON (RFC 9110, sections 8.3, 12.5.1)."""

import re
from functools import lru_cache

JSON = "application/json"
# At most this many ranges and parameters of a header are read; a client may send thousands.
MAX_PARTS = 50
# A client that accepts problem details only can also read our other JSON responses.
_EQUIVALENTS = {JSON: frozenset({JSON, "application/problem+json"})}
_JSON_TYPE = re.compile(r"application/([a-z0-9!#$&^_.-]+\+)?json")
_QUALITY = re.compile(r"[01]?(\.[0-9]*)?")


@lru_cache(maxsize=256)
def accepts(accept: str, produced: str) -> bool:
    """Tell whether the Accept header allows a response of the media type `produced`; `accept` is empty without one.

    If several ranges match, the most specific one decides: `application/json;q=0, */*` excludes JSON only.
    """
    best, quality = -1, 0.0
    for media_range in accept.split(",", MAX_PARTS)[:MAX_PARTS]:
        kind, *parameters = (part.strip().lower() for part in media_range.split(";", MAX_PARTS))
        specificity = _specificity(kind, produced)
        if specificity > best:
            best, quality = specificity, _quality(parameters)
    return not accept.strip(", \t") or quality > 0


@lru_cache(maxsize=256)
def is_json(content_type: str) -> bool:
    """Tell whether a Content-Type is JSON in UTF-8; `application/vnd.example+json` is JSON too."""
    kind = content_type.partition(";")[0].strip().lower()
    return bool(_JSON_TYPE.fullmatch(kind)) and is_utf8(content_type)


def is_utf8(content_type: str) -> bool:
    """Tell whether a Content-Type states no other charset than UTF-8."""
    _, *parameters = (part.strip().lower() for part in content_type.split(";", MAX_PARTS))
    charsets = [value.strip(' "') for name, _, value in map(_split, parameters) if name == "charset"]
    return set(charsets) <= {"utf-8", "utf8"}


def _specificity(kind: str, produced: str) -> int:
    """Return how specifically a media range matches `produced`: 2 the type, 1 `type/*`, 0 `*/*`, -1 no match."""
    if kind in _EQUIVALENTS.get(produced, {produced}):
        return 2
    if kind == produced.partition("/")[0] + "/*":
        return 1
    return 0 if kind == "*/*" else -1


def _quality(parameters: list[str]) -> float:
    for name, _, value in map(_split, parameters):
        if name == "q" and value.strip(".") and _QUALITY.fullmatch(value):
            return float(value)
    return 1.0


def _split(parameter: str) -> tuple[str, str, str]:
    name, equals, value = parameter.partition("=")
    return name.strip(), equals, value.strip()
