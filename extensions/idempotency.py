"""Calls that create something, made at most once per idempotency key.

The key and its answer commit with the change itself: a client that lost the answer finds what was made.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import func, insert, select

from contracts.base import Actor, Replayed
from contracts.errors import IdempotencyKeyInUse, IdempotencyKeyReused, ServiceError, ValidationFailed
from extensions.telemetry import current_trace
from extensions.work import UnitOfWork

MAX_KEY_LENGTH = 255
_VISIBLE = re.compile(r"[!-~]+")
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
    with work.transaction():
        if key is None:
            return call()
        answer, is_first = _stored_or_first(work, method, key, arguments, call)
    # After the commit: a refusal is stored like a success.
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


def _stored_or_first(
    work: UnitOfWork, method: str, key: str, arguments: Mapping[str, Any], call: Callable[[], Any]
) -> tuple[dict[str, Any], bool]:
    """Return the answer, and whether it is the first one."""
    if not isinstance(key, str) or not 1 <= len(key) <= MAX_KEY_LENGTH or not _VISIBLE.fullmatch(key):
        raise ValidationFailed.field("Idempotency-Key", f"must be 1 to {MAX_KEY_LENGTH} visible ASCII characters")
    actor = _caller(arguments.get("actor"))
    identity = {"actor": actor, "method": method, "key": key}
    fingerprint = _fingerprint(arguments)
    session, keys = work.session, work.table("idempotency_keys")
    lock = func.hashtextextended(f"{actor}\n{method}\n{key}", 0)
    if not session.scalar(select(func.pg_try_advisory_xact_lock(lock))):
        raise IdempotencyKeyInUse(retry_after=1)
    stored = session.execute(select(keys.c.fingerprint, keys.c.answer).filter_by(**identity)).one_or_none()
    if stored is not None:
        if stored.fingerprint != fingerprint:
            raise IdempotencyKeyReused
        return _unpacked(stored.answer), False
    answer = _first_answer(work, call)
    # As text: an object in JSONB forgets the order of its fields, and the answer is promised byte for byte.
    packed = json.dumps(answer, default=str)
    session.execute(insert(keys).values(**identity, fingerprint=fingerprint, answer=packed))
    return answer, True


def _unpacked(stored: Any) -> dict[str, Any]:
    """Return a stored answer; those from before they were stored as text are objects."""
    answer: dict[str, Any] = json.loads(stored) if isinstance(stored, str) else stored
    return answer


def _first_answer(work: UnitOfWork, call: Callable[[], Any]) -> dict[str, Any]:
    try:
        with work.session.begin_nested():
            return {"result": call()}
    except ServiceError as error:
        if error.status >= 500 or error.status in NOT_STORED:
            raise
        work.withdraw()
        # A problem names its request: a repeated one is promised byte for byte as well.
        return {"error": error.to_wire(), "request_id": current_trace().request_id}


def _caller(actor: Any) -> str:
    return str(Actor.of(actor).user_id or "operator")


def _fingerprint(arguments: Mapping[str, Any]) -> str:
    """Hash what was asked for; who asked and under which key is the row's own key."""
    asked = {name: value for name, value in arguments.items() if name not in {"actor", "idempotency_key"}}
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()
