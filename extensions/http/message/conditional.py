"""Conditional requests (RFC 9110, section 13): 304 for what the client has already, 412 for what it has not seen.

GET is compared here. PUT and PATCH are compared by the owning service, under the lock under which it writes.
"""

import re
from collections.abc import Mapping
from typing import Any

from contracts.errors import PreconditionFailed, ValidationFailed
from contracts.etags import ANY, etag
from extensions.http.message.request import HttpRequest

NOT_MODIFIED = 304

_TAG = r'(?:W/)?"[!#-~\x80-\xff]*"'
_TAGS = re.compile(rf"[ \t,]*{_TAG}(?:[ \t]*,[ \t,]*{_TAG})*[ \t,]*")
_EACH = re.compile(_TAG)


def entity_tags(headers: Mapping[str, str], name: str) -> list[str] | None:
    """Return the tags of a header, `["*"]` for any; None without the header. Raises ValidationFailed."""
    value = headers.get(name.lower())
    if value is None:
        return None
    if value.strip() == ANY:
        return [ANY]
    if not _TAGS.fullmatch(value):
        raise ValidationFailed.field(name, f'must be * or the ETag of an answer, in its quotes: {name}: "5d41402a"')
    return _EACH.findall(value)


def precondition(headers: Mapping[str, str]) -> dict[str, Any]:
    """Return what a PUT or PATCH passes on to the owning service: its `if_match`, if it has any.

    Raises ValidationFailed.
    """
    if "if-none-match" in headers:
        raise ValidationFailed.field("If-None-Match", "is for GET; to change only what you have seen, send If-Match")
    tags = entity_tags(headers, "If-Match")
    return {} if tags is None else {"if_match": tags}


def tag(headers: dict[str, str], body: Any, request: HttpRequest) -> bool:
    """Add the ETag of `body`, one resource as plain JSON; tell whether the client of a GET has just that already.

    Raises PreconditionFailed where a GET wants no other state than one it knows, ValidationFailed for what are no tags.
    """
    own = headers["ETag"] = etag(body)
    if request.method not in {"GET", "HEAD"}:
        return False
    wanted = entity_tags(request.headers, "If-Match")
    if wanted is not None and ANY not in wanted and own not in wanted:
        raise PreconditionFailed
    known = entity_tags(request.headers, "If-None-Match")
    # The weak comparison, which takes W/ for nothing.
    return known is not None and (ANY in known or own in [one.removeprefix("W/") for one in known])
