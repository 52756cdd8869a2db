"""Calls that create something, made at most once per idempotency key.

The key and its answer commit with the change itself: a client that lost the answer finds what was made.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Boolean, Text, select, text
from sqlalchemy.dialects.postgresql import JSONB, insert

from contracts.base import Actor, Replayed
from contracts.errors import IdempotencyKeyInUse, IdempotencyKeyReused, ServiceError, ValidationFailed
from extensions.telemetry import current_trace
from extensions.work import UnitOfWork

MAX_KEY_LENGTH = 255
_VISIBLE = re.compile(r"[!-~]+")
# Whether nobody else is at it, and what is stored: in one round trip, which is one for every order.
_LOOK = text(
    "SELECT mine.locked, known.fingerprint, known.answer"
    " FROM (SELECT pg_try_advisory_xact_lock(hashtextextended(:lock, 0)) AS locked) AS mine LEFT JOIN idempotency_keys"
    " AS known ON known.actor = :actor AND known.method = :method AND known.key = :key"
).columns(locked=Boolean, fingerprint=Text, answer=JSONB)
# A request that was wrong by itself may be mended and sent again under the same key.
NOT_STORED = {400, 401, 406, 413, 415, 429}


def run_once(
    work: UnitOfWork, method: str, key: str | None, arguments: Mapping[str, Any], call: Callable[[], Any]
) -> Any:
    """Return the result of `call()`, run in a transaction of its own; with a key, the result of its first run.

    That is an object, and Replayed where it is not the first time. Raises IdempotencyKeyReused for other arguments,
    IdempotencyKeyInUse while the first call is still running, and repeats the ServiceError that the first call ended
    with, its `replay_of` set.
    """
    if key is None:
        with work.transaction():
            return call()
    try:
        answer, is_first = _answer(work, method, key, arguments, lambda: {"result": _result_of(call)})
    except _Refused as refused:
        # What it had done until then is rolled back; no savepoint, because most calls are not refused. A problem names
        # its request: a repeated one is promised byte for byte as well.
        refusal = {"error": refused.error.to_wire(), "request_id": current_trace().request_id}
        answer, is_first = _answer(work, method, key, arguments, lambda: refusal)
    if "error" in answer:
        error = ServiceError.from_wire(answer["error"])
        error.replay_of = None if is_first else answer.get("request_id", current_trace().request_id)
        raise error
    return answer["result"] if is_first else Replayed(answer["result"])


def is_known(work: UnitOfWork, method: str, key: str | None, actor: Any) -> bool:
    """Tell whether a call with this key was answered before, so that `run_once` would only repeat its answer."""
    if not isinstance(key, str) or "\0" in key:
        return False
    keys = work.table("idempotency_keys")
    identity = {"actor": _caller(actor), "method": method, "key": key}
    with work.transaction() as session:
        return session.scalar(select(keys.c.created_at).filter_by(**identity)) is not None


class _Refused(Exception):
    """The call ended with a ServiceError that is its answer as much as a result would be."""

    def __init__(self, error: ServiceError) -> None:
        super().__init__(error)
        self.error = error


def _result_of(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except ServiceError as error:
        if error.status >= 500 or error.status in NOT_STORED:
            raise
        raise _Refused(error) from error


def _answer(
    work: UnitOfWork, method: str, key: str, arguments: Mapping[str, Any], make: Callable[[], dict[str, Any]]
) -> tuple[dict[str, Any], bool]:
    """Return the stored answer; where there is none, store the one that `make()` returns. Also: is it the first?"""
    if not isinstance(key, str) or not 1 <= len(key) <= MAX_KEY_LENGTH or not _VISIBLE.fullmatch(key):
        raise ValidationFailed.field("Idempotency-Key", f"must be 1 to {MAX_KEY_LENGTH} visible ASCII characters")
    actor = _caller(arguments.get("actor"))
    identity = {"actor": actor, "method": method, "key": key}
    fingerprint = _fingerprint(arguments)
    keys = work.table("idempotency_keys")
    with work.transaction() as session:
        locked, known, stored = session.execute(_LOOK, {**identity, "lock": f"{actor}\n{method}\n{key}"}).one()
        if not locked:
            raise IdempotencyKeyInUse(retry_after=1)
        if known is not None:
            if known != fingerprint:
                raise IdempotencyKeyReused
            return _unpacked(stored), False
        answer = make()
        # As text: an object in JSONB forgets the order of its fields, and the answer is promised byte for byte.
        packed = json.dumps(answer, default=str)
        row = {**identity, "fingerprint": fingerprint, "answer": packed}
        if session.execute(insert(keys).on_conflict_do_nothing().returning(keys.c.method), row).first() is None:
            # It was stored after we had looked and before we had the lock. Nothing of ours stays.
            raise IdempotencyKeyInUse(retry_after=1)
        return answer, True


def _unpacked(stored: Any) -> dict[str, Any]:
    """Return a stored answer; those from before they were stored as text are objects."""
    answer: dict[str, Any] = json.loads(stored) if isinstance(stored, str) else stored
    return answer


def _caller(actor: Any) -> str:
    return str(Actor.of(actor).user_id or "operator")


def _fingerprint(arguments: Mapping[str, Any]) -> str:
    """Hash what was asked for; who asked and under which key is the row's own key."""
    asked = {name: value for name, value in arguments.items() if name not in {"actor", "idempotency_key"}}
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()
