"""Entity tags identify a state of a resource, so that no client overwrites a change that it has not seen."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from contracts.base import View
from contracts.errors import PreconditionFailed, ValidationFailed

ANY = "*"


def etag(resource: Mapping[str, Any] | bytes) -> str:
    """Return the strong entity tag of a resource as plain JSON, or as the bytes that it is; its quotes included.

    A hash of all that the client sees: a resource needs no version for it, and two that differ never share one.
    """
    content = resource if isinstance(resource, bytes) else json.dumps(resource, separators=(",", ":")).encode()
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def require_match(resource: View, if_match: Sequence[str] | None) -> None:
    """Raise PreconditionFailed unless one of these tags, or `*`, is that of a resource which is locked; None always is.

    Raises ValidationFailed for what is no list of tags.
    """
    if if_match is None:
        return
    if not isinstance(if_match, list | tuple) or not all(isinstance(tag, str) for tag in if_match):
        raise ValidationFailed.field("if_match", 'must be a list of entity tags, such as ["\\"5d41402a\\""]')
    if ANY not in if_match and etag(resource.to_dict()) not in if_match:
        raise PreconditionFailed
