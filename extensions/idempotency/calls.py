"""Calls that create something, made at most once per idempotency key.

The key and the result are committed with the change itself: a client that lost the response repeats the call and gets
the stored result. `run_once` makes one call in its own transaction, `run_many` several in one transaction.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from contracts.errors import IdempotencyKeyInUse, ServiceError, ServiceUnavailable
from extensions.idempotency.keys import IdempotencyKey
from extensions.idempotency.stored_results import (
    is_storable,
    lock_and_read,
    refusal,
    replay,
    require_usable,
    store,
)
from extensions.observability.traces import Trace, current_trace, use_trace
from extensions.storage.engine import CommitUnknown, DatabaseUnavailable, is_outage
from extensions.storage.unit_of_work import UnitOfWork

log = logging.getLogger(__name__)

UseCase = Callable[[Sequence[Any]], Sequence[Any]]
"""Executes prepared calls; returns the result of each, in their order."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call that can share a transaction with others.

    `prepare()` returns the input for the use case. It does not access the database. A ServiceError that it raises is
    the outcome of this call only.
    """

    method: str
    key: str | None
    arguments: Mapping[str, Any]
    prepare: Callable[[], Any]
    trace: Trace = field(default_factory=current_trace)


def run_once(
    work: UnitOfWork, method: str, key: str | None, arguments: Mapping[str, Any], call: Callable[[], Any]
) -> Any:
    """Return the result of `call()`, run in its own transaction; with a key, the result of its first run.

    With a key the result must be an object or None; a stored one is Replayed. Raises IdempotencyKeyReused for
    other arguments, IdempotencyKeyInUse while the first call is still running, and the ServiceError of a first call
    that was refused, with `replay_of` set.
    """
    if key is None:
        with work.transaction():
            return call()
    wanted = IdempotencyKey.parse(method, key, arguments)
    try:
        stored, is_first = _stored_or_new(work, wanted, lambda: {"result": _result_of(call)})
    except _Refused as refused:
        # The changes of the refused call are rolled back. Most calls are not refused, so a savepoint is not worth it.
        refused_result = refusal(refused.error)
        stored, is_first = _stored_or_new(work, wanted, lambda: refused_result)
    if not is_first:
        return replay(stored)
    if "error" in stored:
        raise ServiceError.from_wire(stored["error"])
    return stored["result"]


def run_many(work: UnitOfWork, calls: Sequence[Call], use_case: UseCase) -> list[Any]:
    """Make all of `calls` in one transaction. Returns the outcome of each, which may be an exception.

    The outcome is what `run_once` would return or raise. If the shared transaction fails, the calls are made one by
    one, so that a faulty call affects no other.
    """
    if len(calls) > 1:
        try:
            with use_trace(calls[0].trace):
                return _run_batch(work, calls, use_case)
        except Exception as error:
            if is_outage(error):  # also CommitUnknown: do not repeat committed calls
                return [error] * len(calls)
            log.warning("a batch of %d calls failed, each call is made separately", len(calls), exc_info=True)
    return _run_one_by_one(work, calls, use_case)


class _Refused(Exception):
    """The call ended with a ServiceError that is stored like a result."""

    def __init__(self, error: ServiceError) -> None:
        super().__init__(error)
        self.error = error


def _result_of(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except ServiceError as error:
        if is_storable(error):
            raise _Refused(error) from error
        raise


def _stored_or_new(
    work: UnitOfWork, key: IdempotencyKey, make: Callable[[], dict[str, Any]]
) -> tuple[dict[str, Any], bool]:
    """Return the stored result and False; if there is none, store the result of `make()` and return it and True."""
    with work.transaction() as session:
        (row,) = lock_and_read(session, [key])
        stored = require_usable(key, row)
        if stored is not None:
            return stored, False
        new = make()
        store(session, [(key, new)])
        return new, True


def _run_one_by_one(work: UnitOfWork, calls: Sequence[Call], use_case: UseCase) -> list[Any]:
    outcomes: list[Any] = []
    for call in calls:
        try:
            with use_trace(call.trace):
                outcomes.append(
                    run_once(work, call.method, call.key, call.arguments, lambda: use_case([call.prepare()])[0])  # noqa: B023
                )
        except (DatabaseUnavailable, CommitUnknown) as error:
            outcomes.append(error)
            break  # each of the other calls would wait as long as this one did
        except Exception as error:  # noqa: BLE001  (its caller raises it)
            outcomes.append(error)
    return outcomes + [ServiceUnavailable(retry_after=1) for _ in calls[len(outcomes) :]]


def _run_batch(work: UnitOfWork, calls: Sequence[Call], use_case: UseCase) -> list[Any]:
    batch = [_BatchedCall(call) for call in calls]
    with work.transaction() as session:
        _use_stored_results(session, batch)
        for call in batch:
            call.prepare()
        ready = [call for call in batch if not call.is_done]
        results = use_case([call.prepared for call in ready]) if ready else []
        for call, result in zip(ready, results, strict=True):
            call.finish(result, {"result": result})
        store(session, [(call.key, call.to_store) for call in batch if call.key and call.to_store])
    return [call.outcome for call in batch]


class _BatchedCall:
    """A call of a batch: its outcome for the caller, and what is stored under its key."""

    def __init__(self, call: Call) -> None:
        self.key: IdempotencyKey | None = None
        self.prepared: Any = None
        self.outcome: Any = None
        self.to_store: dict[str, Any] | None = None
        self.is_done = False
        self._call = call
        if call.key is not None:
            with self._errors_as_outcome():
                self.key = IdempotencyKey.parse(call.method, call.key, call.arguments)

    def use_stored_result(self, row: Any) -> None:
        """Finish if the key is in use, has a stored result, or was used for other arguments."""
        with self._errors_as_outcome():
            stored = None if self.key is None else require_usable(self.key, row)
            if stored is not None:
                self.finish(replay(stored))

    def prepare(self) -> None:
        """Prepare the input for the use case. Finish if the call is refused."""
        if not self.is_done:
            with self._errors_as_outcome(store_refusal=True):
                self.prepared = self._call.prepare()

    def finish(self, outcome: Any, to_store: dict[str, Any] | None = None) -> None:
        """Set the outcome of the call, and what to store under its key."""
        self.outcome, self.to_store, self.is_done = outcome, to_store, True

    @contextmanager
    def _errors_as_outcome(self, *, store_refusal: bool = False) -> Iterator[None]:
        """Run the block under the trace of the call. An exception is the outcome of this call and of no other."""
        with use_trace(self._call.trace):
            try:
                yield
            except Exception as error:  # noqa: BLE001  (its caller raises it)
                self.finish(error, refusal(error) if store_refusal and is_storable(error) else None)


def _use_stored_results(session: Session, batch: Sequence[_BatchedCall]) -> None:
    """Lock the keys and read their stored results. A key that occurs twice is in use for the second call."""
    by_lock: dict[str, _BatchedCall] = {}
    for call in batch:
        if call.key and by_lock.setdefault(call.key.lock, call) is not call:
            call.finish(IdempotencyKeyInUse(retry_after=1))
    if by_lock:
        rows = lock_and_read(session, [call.key for call in by_lock.values() if call.key])
        for call, row in zip(by_lock.values(), rows, strict=True):
            call.use_stored_result(row)
