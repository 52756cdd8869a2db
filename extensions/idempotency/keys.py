"""Calls that create something, made at most once per idempotency key.

The key and its answer commit with the change itself: a client that lost the answer finds what was made. `run_once` is
for one call in a transaction of its own, `run_many` for those that share one.
"""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self, TypeGuard

from sqlalchemy import Boolean, Text, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from contracts.base import Actor, Replayed
from contracts.errors import (
    NOT_STORED,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    ServiceError,
    ServiceUnavailable,
    ValidationFailed,
)
from extensions.observability.traces import Trace, current_trace, use_trace
from extensions.storage.engine import CommitUnknown, DatabaseUnavailable, is_outage
from extensions.storage.unit_of_work import UnitOfWork

log = logging.getLogger(__name__)

MAX_KEY_LENGTH = 255
_VISIBLE = re.compile(r"[!-~]+")
# Whether nobody else is at it, and what is stored: in one round trip, which is one for every order.
_LOOK = text(
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

Do = Callable[[Sequence[Any]], Sequence[Any]]

_under_way: set[tuple[str, str, Any]] = set()


@dataclass(frozen=True, slots=True)
class Call:
    """A call that can be made together with others: `prepare()` returns what is to be done, or refuses it.

    It touches no database: a ServiceError that it ends with is the answer of this call alone.
    """

    method: str
    key: str | None
    arguments: Mapping[str, Any]
    prepare: Callable[[], Any]
    trace: Trace = field(default_factory=current_trace)


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
    wanted = _Key.of(method, key, arguments)
    try:
        answer, is_first = _answer(work, wanted, lambda: {"result": _result_of(call)})
    except _Refused as refused:
        # What it had done until then is rolled back; no savepoint, because most calls are not refused.
        refusal = _refusal(refused.error)
        answer, is_first = _answer(work, wanted, lambda: refusal)
    if not is_first:
        return _repeated(answer)
    if "error" in answer:
        raise ServiceError.from_wire(answer["error"])
    return answer["result"]


def run_many(work: UnitOfWork, calls: Sequence[Call], do: Do) -> list[Any]:
    """Make all of `calls` in one transaction: `do(prepared)` returns the result of each.

    Returns what `run_once` would return for each call; what it would raise is among them, not raised. Calls that
    cannot be made together are made one by one, so that a faulty one harms no other.
    """
    if len(calls) > 1:
        try:
            with use_trace(calls[0].trace):
                return _make_together(work, calls, do)
        except Exception as error:
            if is_outage(error):  # CommitUnknown is among them: they may have been made
                return [error] * len(calls)
            log.warning("%d calls could not be made together, each is made by itself", len(calls), exc_info=True)
    return _make_one_by_one(work, calls, do)


@contextmanager
def under_way(call: Call) -> Iterator[None]:
    """Hold the key of `call` meanwhile. Raises IdempotencyKeyInUse where another call of this process holds it.

    The database says so to those in other processes; one that waits here for the end of the first would only ask
    afterwards, and be told the answer.
    """
    name = (_caller(call.arguments.get("actor")), call.method, call.key)
    if not isinstance(call.key, str):  # there is none, or one that is refused
        yield
        return
    if name in _under_way:
        raise IdempotencyKeyInUse(retry_after=1)
    _under_way.add(name)
    try:
        yield
    finally:
        _under_way.discard(name)


def is_known(work: UnitOfWork, method: str, key: str | None, actor: Any) -> bool:
    """Tell whether a call with this key was answered before, so that `run_once` would only repeat its answer."""
    if not isinstance(key, str) or "\0" in key:
        return False
    keys = work.table("idempotency_keys")
    identity = {"actor": _caller(actor), "method": method, "key": key}
    with work.transaction() as session:
        return session.scalar(select(keys.c.created_at).filter_by(**identity)) is not None


@dataclass(frozen=True, slots=True)
class _Key:
    """A key that was used: by whom, for which method, and for what it stands."""

    actor: str
    method: str
    key: str
    fingerprint: str

    @classmethod
    def of(cls, method: str, key: Any, arguments: Mapping[str, Any]) -> Self:
        """Raise ValidationFailed where the key is none."""
        if not isinstance(key, str) or not 1 <= len(key) <= MAX_KEY_LENGTH or not _VISIBLE.fullmatch(key):
            raise ValidationFailed.field("Idempotency-Key", f"must be 1 to {MAX_KEY_LENGTH} visible ASCII characters")
        return cls(_caller(arguments.get("actor")), method, key, _fingerprint(arguments))

    @property
    def lock(self) -> str:
        """What is locked while it is in use."""
        return f"{self.actor}\n{self.method}\n{self.key}"


class _Refused(Exception):
    """The call ended with a ServiceError that is its answer as much as a result would be."""

    def __init__(self, error: ServiceError) -> None:
        super().__init__(error)
        self.error = error


def _result_of(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except ServiceError as error:
        if _is_kept(error):
            raise _Refused(error) from error
        raise


def _is_kept(error: Exception) -> TypeGuard[ServiceError]:
    return isinstance(error, ServiceError) and error.status < 500 and error.status not in NOT_STORED


def _refusal(error: ServiceError) -> dict[str, Any]:
    """Return the answer to store. A problem names its request: a repeated one is promised byte for byte as well."""
    return {"error": error.to_wire(), "request_id": current_trace().request_id}


def _repeated(answer: dict[str, Any]) -> Replayed:
    """Give a stored answer once more."""
    if "error" in answer:
        error = ServiceError.from_wire(answer["error"])
        error.replay_of = answer.get("request_id", current_trace().request_id)
        raise error
    return Replayed(answer["result"])


def _answer(work: UnitOfWork, key: _Key, make: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], bool]:
    """Return the stored answer; where there is none, store the one that `make()` returns. Also: is it the first?"""
    with work.transaction() as session:
        (seen,) = _look(session, [key])
        known = _known(key, seen)
        if known is not None:
            return known, False
        answer = make()
        _store(session, [(key, answer)])
        return answer, True


def _make_one_by_one(work: UnitOfWork, calls: Sequence[Call], do: Do) -> list[Any]:
    outcomes: list[Any] = []
    for call in calls:
        try:
            with use_trace(call.trace):
                outcomes.append(
                    run_once(work, call.method, call.key, call.arguments, lambda: do([call.prepare()])[0])  # noqa: B023
                )
        except (DatabaseUnavailable, CommitUnknown) as error:
            outcomes.append(error)
            break  # the others would wait for it as long as this one did
        except Exception as error:  # noqa: BLE001  (its caller raises it)
            outcomes.append(error)
    return outcomes + [ServiceUnavailable(retry_after=1) for _ in calls[len(outcomes) :]]


def _make_together(work: UnitOfWork, calls: Sequence[Call], do: Do) -> list[Any]:
    turns = [_Turn(call) for call in calls]
    with work.transaction() as session:
        _compare(session, turns)
        for turn in turns:
            turn.prepare()
        ready = [turn for turn in turns if not turn.is_over]
        results = do([turn.prepared for turn in ready]) if ready else []
        for turn, result in zip(ready, results, strict=True):
            turn.end(result, {"result": result})
        _store(session, [(turn.key, turn.answer) for turn in turns if turn.key and turn.answer])
    return [turn.outcome for turn in turns]


class _Turn:
    """One call of those that are made together: what its caller gets, and what of that is kept under its key."""

    def __init__(self, call: Call) -> None:
        self.key: _Key | None = None
        self.prepared: Any = None
        self.outcome: Any = None
        self.answer: dict[str, Any] | None = None
        self.is_over = False
        self._call = call
        if call.key is not None:
            with self._ending():
                self.key = _Key.of(call.method, call.key, call.arguments)

    def compare(self, seen: Any) -> None:
        """End where the key is in use, or stands for another request, or has its answer."""
        with self._ending():
            known = None if self.key is None else _known(self.key, seen)
            if known is not None:
                self.end(_repeated(known))

    def prepare(self) -> None:
        """Find out what is to be done, or that it is refused."""
        if not self.is_over:
            with self._ending(keep=True):
                self.prepared = self._call.prepare()

    def end(self, outcome: Any, answer: dict[str, Any] | None = None) -> None:
        """Note what became of the call."""
        self.outcome, self.answer, self.is_over = outcome, answer, True

    @contextmanager
    def _ending(self, *, keep: bool = False) -> Iterator[None]:
        """Do something for the request that asked; an error of it is the outcome of this call, and of no other."""
        with use_trace(self._call.trace):
            try:
                yield
            except Exception as error:  # noqa: BLE001  (its caller raises it)
                self.end(error, _refusal(error) if keep and _is_kept(error) else None)


def _compare(session: Session, turns: Sequence[_Turn]) -> None:
    """Lock the keys, and see what is known of them. PostgreSQL lets a transaction lock a key that it has locked."""
    users: dict[str, _Turn] = {}
    for turn in turns:
        if turn.key and users.setdefault(turn.key.lock, turn) is not turn:
            turn.end(IdempotencyKeyInUse(retry_after=1))
    if users:
        seen = _look(session, [turn.key for turn in users.values() if turn.key])
        for turn, what in zip(users.values(), seen, strict=True):
            turn.compare(what)


def _look(session: Session, keys: Sequence[_Key]) -> Sequence[Any]:
    """Lock the keys that nobody else uses; returns (locked, fingerprint, answer) of each, in the order of `keys`."""
    columns = {name: [getattr(key, name) for key in keys] for name in ("actor", "method", "key", "lock")}
    return session.execute(_LOOK, columns).all()


def _known(key: _Key, seen: Any) -> dict[str, Any] | None:
    """Return the answer that is stored. Raises IdempotencyKeyInUse, and IdempotencyKeyReused for other arguments."""
    is_locked, fingerprint, answer = seen
    if not is_locked:
        raise IdempotencyKeyInUse(retry_after=1)
    if fingerprint not in (None, key.fingerprint):
        raise IdempotencyKeyReused
    return None if fingerprint is None else _unpacked(answer)


def _store(session: Session, answers: Sequence[tuple[_Key, dict[str, Any]]]) -> None:
    columns = {name: [getattr(key, name) for key, _ in answers] for name in ("actor", "method", "key", "fingerprint")}
    # As text: an object in JSONB forgets the order of its fields, and the answer is promised byte for byte.
    texts = [json.dumps(json.dumps(answer, default=str)) for _, answer in answers]
    if answers and len(session.execute(_STORE, {**columns, "answer": texts}).all()) < len(answers):
        # One was stored after we had looked and before we had the lock. Nothing of ours stays.
        raise IdempotencyKeyInUse(retry_after=1)


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
