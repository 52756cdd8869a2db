"""Idempotency keys: what identifies a call, and which keys this process is using at the moment."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from contracts.base import Actor
from contracts.errors import IdempotencyKeyInUse, ValidationFailed

MAX_KEY_LENGTH = 255
_VISIBLE = re.compile(r"[!-~]+")

_in_use: set[tuple[str, str, str]] = set()


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A key together with its owner, the method that it was sent to, and the fingerprint of the arguments."""

    actor: str
    method: str
    key: str
    fingerprint: str

    @classmethod
    def parse(cls, method: str, key: Any, arguments: Mapping[str, Any]) -> Self:
        """Raise ValidationFailed unless `key` is a string of 1 to MAX_KEY_LENGTH visible ASCII characters."""
        if not isinstance(key, str) or not 1 <= len(key) <= MAX_KEY_LENGTH or not _VISIBLE.fullmatch(key):
            raise ValidationFailed.field("Idempotency-Key", f"must be 1 to {MAX_KEY_LENGTH} visible ASCII characters")
        return cls(owner_of(arguments.get("actor")), method, key, _fingerprint(arguments))

    @property
    def lock(self) -> str:
        """The name of the advisory lock that a transaction holds while it uses the key."""
        return f"{self.actor}\n{self.method}\n{self.key}"


@contextmanager
def in_use(method: str, key: Any, actor: Any) -> Iterator[None]:
    """Mark the key as in use by this process inside the block. Raises IdempotencyKeyInUse if it is already in use.

    The advisory lock in the database does the same between processes. Inside one process it is not enough: a second
    call would wait in the batcher until the first one is done, and then get the stored result instead of the error.
    """
    if not isinstance(key, str):  # no key, or one that IdempotencyKey.parse rejects
        yield
        return
    name = (owner_of(actor), method, key)
    if name in _in_use:
        raise IdempotencyKeyInUse(retry_after=1)
    _in_use.add(name)
    try:
        yield
    finally:
        _in_use.discard(name)


def owner_of(actor: Any) -> str:
    """Return whose keys `actor` uses: the user id, or "operator"."""
    return str(Actor.of(actor).user_id or "operator")


def _fingerprint(arguments: Mapping[str, Any]) -> str:
    """Hash the arguments without the actor and the key, which have their own columns."""
    request = {
        name: _without_absent(value) for name, value in arguments.items() if name not in {"actor", "idempotency_key"}
    }
    return hashlib.sha256(json.dumps(request, sort_keys=True, default=str).encode()).hexdigest()


def _without_absent(value: Any) -> Any:
    """Return `value` without the null fields of its objects. In a request that creates, null and absent are the same.

    The arguments themselves are left as they are, because results stored by earlier versions have their fingerprints.
    """
    if isinstance(value, Mapping):
        return {name: _without_absent(inner) for name, inner in value.items() if inner is not None}
    return [_without_absent(inner) for inner in value] if isinstance(value, list | tuple) else value
