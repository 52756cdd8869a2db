"""Conditional requests (RFC 9110, section 13): 304 for an unchanged resource, 412 for a stale precondition.

GET is compared here. PUT and PATCH are compared by the owning service, under the lock of the write.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from contracts.errors import PreconditionFailed, ValidationFailed
from contracts.etags import ANY, etag
from extensions.http.message.request import HttpRequest

NOT_MODIFIED = 304

# What servers append to a tag when they compress a response (Apache, Jetty, Caddy).
_CODING_SUFFIXES = ("-gzip", "-br", "-zstd", "-deflate")
_TAG = r'(?:W/)?"[!#-~\x80-\xff]*"'
_TAG_LIST = re.compile(rf"[ \t,]*{_TAG}(?:[ \t]*,[ \t,]*{_TAG})*[ \t,]*")
_EACH_TAG = re.compile(_TAG)


def strong_form(tag: str) -> str:
    """Return the tag that this gateway sent, if a proxy has changed `tag` only because it compressed the response.

    Our tags are strong, so a weak one, or one with the name of a coding, comes from a proxy. It stands for the same
    JSON, and If-Match is about that: whether the client has seen this version.
    """
    opaque = tag.removeprefix("W/").removesuffix('"')
    for suffix in _CODING_SUFFIXES:
        if opaque.endswith(suffix):
            opaque = opaque.removesuffix(suffix).removesuffix("-")
    return opaque + '"'


_shared_etag = lru_cache(maxsize=256)(etag)


def entity_tags(headers: Mapping[str, str], name: str) -> list[str] | None:
    """Return the entity tags of a header in their strong form: `["*"]` for any, None without the header.

    Raises ValidationFailed.
    """
    value = headers.get(name.lower())
    if value is None:
        return None
    if value.strip() == ANY:
        return [ANY]
    if not _TAG_LIST.fullmatch(value):
        raise ValidationFailed.field(name, f'must be * or the ETag of a response, in its quotes: {name}: "5d41402a"')
    return [strong_form(tag) for tag in _EACH_TAG.findall(value)]


def precondition(headers: Mapping[str, str]) -> dict[str, Any]:
    """Return the keyword arguments that a PUT or PATCH passes to the owning service: `if_match`, or nothing.

    Raises ValidationFailed.
    """
    if "if-none-match" in headers:
        raise ValidationFailed.field("If-None-Match", "is for GET; to change only what you have seen, send If-Match")
    tags = entity_tags(headers, "If-Match")
    return {} if tags is None else {"if_match": tags}


def add_etag(headers: dict[str, str], body: Any, request: HttpRequest, *, is_shared: bool = False) -> bool:
    """Add the ETag of `body`, one resource as plain JSON, to `headers`. True where a GET gets 304 instead of `body`.

    The tag of a body that `is_shared` is computed once: for a large file that takes milliseconds.

    Raises PreconditionFailed where the If-Match of a GET does not match, ValidationFailed for a malformed header.
    """
    current = headers["ETag"] = _shared_etag(body) if is_shared else etag(body)
    if request.method not in {"GET", "HEAD"}:
        return False
    required = entity_tags(request.headers, "If-Match")
    if required is not None and ANY not in required and current not in required:
        raise PreconditionFailed
    known = entity_tags(request.headers, "If-None-Match")
    return known is not None and (ANY in known or current in known)
