"""Media types: which answers a client takes, and which bodies we do (RFC 9110, sections 8.3 and 12.5.1)."""

import re
from functools import lru_cache

JSON = "application/json"
# Who asks for problems only gets them, and the rest as well: it is JSON.
_NAMES = {JSON: frozenset({JSON, "application/problem+json"})}
_JSON_TYPE = re.compile(r"application/([a-z0-9!#$&^_.-]+\+)?json")
_QUALITY = re.compile(r"[01]?(\.[0-9]*)?")


@lru_cache(maxsize=256)
def accepts(accept: str, produced: str) -> bool:
    """Tell whether an Accept header, empty where there is none, lets an answer be of the media type `produced`.

    Where several of its ranges fit, the most exact one decides: `application/json;q=0, */*` takes all but JSON.
    """
    best, quality = -1, 0.0
    for media_range in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in media_range.split(";"))
        exactness = _exactness(kind, produced)
        if exactness > best:
            best, quality = exactness, _quality(parameters)
    return not accept.strip(", \t") or quality > 0


@lru_cache(maxsize=256)
def is_json(content_type: str) -> bool:
    """Tell whether a Content-Type says JSON in UTF-8; a vendor's `application/vnd.example+json` is JSON too."""
    kind, *parameters = (part.strip().lower() for part in content_type.split(";"))
    charsets = [value.strip(' "') for name, _, value in map(_split, parameters) if name == "charset"]
    return bool(_JSON_TYPE.fullmatch(kind)) and set(charsets) <= {"utf-8", "utf8"}


def _exactness(kind: str, produced: str) -> int:
    """Return how exactly a range names a media type, -1 where it does not."""
    if kind in _NAMES.get(produced, {produced}):
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
