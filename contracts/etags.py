"""Entity tags: hashes of a resource's content, so that no client overwrites a change that it has not seen."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from contracts.base import View
from contracts.errors import PreconditionFailed, ValidationFailed

ANY = "*"


def etag(resource: Mapping[str, Any] | bytes) -> str:
    """Return the strong entity tag, with its quotes, of a resource given as plain JSON or as bytes.

    It is a hash of the whole content, so it needs no version number, and different contents have different tags.
    """
    content = resource if isinstance(resource, bytes) else json.dumps(resource, separators=(",", ":")).encode()
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def require_match(resource: View, if_match: Sequence[str] | None) -> None:
    """Raise PreconditionFailed unless `if_match` is None or contains `*` or the resource's tag.

    The caller holds the lock of the resource. Raises ValidationFailed if `if_match` is not a list of strings.
    """
    if if_match is None:
        return
    if not isinstance(if_match, list | tuple) or not all(isinstance(tag, str) for tag in if_match):
        raise ValidationFailed.field("if_match", 'must be a list of entity tags, such as ["\\"5d41402a\\""]')
    if ANY not in if_match and etag(resource.to_dict()) not in if_match:
        raise PreconditionFailed
