"""Results stored under idempotency keys: the table `idempotency_keys`.

A stored result is {"result": ...}, or {"error": ..., "request_id": ...} for a call that was refused.
"""

import json
from collections.abc import Sequence
from typing import Any, TypeGuard

from sqlalchemy import Boolean, Text, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from contracts.base import Replayed
from contracts.errors import NOT_STORED, IdempotencyKeyInUse, IdempotencyKeyReused, ServiceError
from extensions.idempotency.keys import IdempotencyKey, owner_of
from extensions.observability.traces import current_trace
from extensions.storage.unit_of_work import UnitOfWork

# Locks the keys and reads the stored results in one round trip: every order makes it.
_LOCK_AND_READ = text(
    "SELECT mine.locked, known.fingerprint, known.answer"
    " FROM (SELECT asked.*, pg_try_advisory_xact_lock(hashtextextended(lock, 0)) AS locked"
    " FROM unnest(CAST(:actor AS text[]), CAST(:method AS text[]), CAST(:key AS text[]), CAST(:lock AS text[]))"
    " WITH ORDINALITY AS asked (actor, method, key, lock, place)) AS mine"
    " LEFT JOIN idempotency_keys AS known USING (actor, method, key) ORDER BY place"
).columns(locked=Boolean, fingerprint=Text, answer=JSONB)
_STORE = text(
    "INSERT INTO idempotency_keys (actor, method, key, fingerprint, answer)"
    " SELECT * FROM unnest(CAST(:actor AS text[]), CAST(:method AS text[]), CAST(:key AS text[]),"
    " CAST(:fingerprint AS text[]), CAST(:answer AS jsonb[]))"
    " ON CONFLICT DO NOTHING RETURNING method"
)


def lock_and_read(session: Session, keys: Sequence[IdempotencyKey]) -> Sequence[Any]:
    """Lock the keys that no other transaction holds. Returns (locked, fingerprint, answer) for each, in their order.

    A transaction can lock a key again that it holds already.
    """
    columns = {name: [getattr(key, name) for key in keys] for name in ("actor", "method", "key", "lock")}
    return session.execute(_LOCK_AND_READ, columns).all()


def require_usable(key: IdempotencyKey, row: Any) -> dict[str, Any] | None:
    """Return the stored result in `row`, a row of lock_and_read; None if there is none yet.

    Raises IdempotencyKeyInUse if another transaction holds the key, IdempotencyKeyReused for other arguments.
    """
    is_locked, fingerprint, answer = row
    if not is_locked:
        raise IdempotencyKeyInUse(retry_after=1)
    if fingerprint not in (None, key.fingerprint):
        raise IdempotencyKeyReused
    return None if fingerprint is None else _decode(answer)


def store(session: Session, results: Sequence[tuple[IdempotencyKey, dict[str, Any]]]) -> None:
    """Store results by key. Raises IdempotencyKeyInUse if one of the keys has a stored result already."""
    columns = {name: [getattr(key, name) for key, _ in results] for name in ("actor", "method", "key", "fingerprint")}
    # As a JSON string: JSONB does not keep the order of an object's fields, and a replay is promised byte for byte.
    texts = [json.dumps(json.dumps(result, default=str)) for _, result in results]
    if results and len(session.execute(_STORE, {**columns, "answer": texts}).all()) < len(results):
        # Another transaction stored a result between the read and the lock of lock_and_read. Roll back.
        raise IdempotencyKeyInUse(retry_after=1)


def has_stored_result(work: UnitOfWork, method: str, key: str | None, actor: Any) -> bool:
    """Tell whether a call with this key has a stored result, so that `run_once` would only replay it."""
    if not isinstance(key, str) or "\0" in key:
        return False
    keys = work.table("idempotency_keys")
    identity = {"actor": owner_of(actor), "method": method, "key": key}
    with work.transaction() as session:
        return session.scalar(select(keys.c.created_at).filter_by(**identity)) is not None


def is_storable(error: Exception) -> TypeGuard[ServiceError]:
    """Tell whether a refusal is stored like a result: a 4xx that the same request would always get."""
    return isinstance(error, ServiceError) and error.status < 500 and error.status not in NOT_STORED


def refusal(error: ServiceError) -> dict[str, Any]:
    """Return the stored form of `error`. It includes the request id, because the problem document contains it."""
    return {"error": error.to_wire(), "request_id": current_trace().request_id}


def replay(stored: dict[str, Any]) -> Replayed:
    """Return a stored result as Replayed, or raise its error with `replay_of` set."""
    if "error" in stored:
        error = ServiceError.from_wire(stored["error"])
        error.replay_of = stored.get("request_id", current_trace().request_id)
        raise error
    return Replayed(stored["result"] or {})  # a call without a result: the caller still learns that it is a replay


def _decode(answer: Any) -> dict[str, Any]:
    """Decode the column `answer`; rows of earlier versions hold an object instead of a string."""
    stored: dict[str, Any] = json.loads(answer) if isinstance(answer, str) else answer
    return stored
