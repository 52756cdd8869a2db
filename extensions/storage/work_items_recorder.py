"""Records the results of work items. All results that are due are recorded in one transaction, and each only once."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import eventlet
from eventlet.event import Event as Signal
from nameko.exceptions import ContainerBeingKilled
from sqlalchemy.orm import Session

from extensions.runtime.backoff import Backoff
from extensions.runtime.progress import Loop
from extensions.storage import work_items
from extensions.storage.engine import LockTimeout, is_general_outage, is_outage
from extensions.storage.work_items import Failure, Item, Later

log = logging.getLogger(__name__)

BATCH = 100
# The least time between two transactions. Results that arrive in this time are recorded together.
INTERVAL_SECONDS = 0.02
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 1.0
STOP_SECONDS = 3.0


@runtime_checkable
class RecordsFailures(Protocol):
    """A handler that also keeps its failed attempts."""

    def record_failures(self, session: Session, failures: Sequence[Failure]) -> None:
        """Record failed attempts. If this fails, the items are tried again as if it had not been called."""


class Retries(Protocol):
    """Decides when an item is attempted again whose result cannot be recorded."""

    def failure(self, item: Item, error: str) -> Failure:
        """Return the failed attempt, with the pause before the next one."""


@dataclass(slots=True)
class Result:
    """One outcome of an item. Its lease ends at `expires` (time.monotonic())."""

    item: Item
    outcome: Any
    expires: float
    limits: Retries
    due: float = 0.0
    """When to record it (time.monotonic()). It is later if the rows are locked or the database does not respond."""
    pauses: Backoff = field(default_factory=lambda: Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS))


class Recorder:
    """Records results and failed attempts."""

    def __init__(
        self, in_transaction: Callable[[Callable[[Any, Any], Any]], Any], wake: Callable[[str], object]
    ) -> None:
        """`in_transaction(step)` runs a step. `wake(kind)` is called when an item of this kind has become due."""
        self._in_transaction, self._wake_lane = in_transaction, wake
        self._results: list[Result] = []
        self._failures: list[Failure] = []
        self._wakeup = Signal()
        self._stop_by: float | None = None
        self.progress = Loop("work.recorder")

    def add(self, result: Result) -> None:
        """Record `result` soon."""
        self._results.append(result)
        self._wake()

    def fail(self, failure: Failure) -> None:
        """Record a failed attempt soon."""
        self._failures.append(failure)
        self._wake()

    def stop(self) -> None:
        """Record the results that were added, within STOP_SECONDS, and end."""
        self._stop_by = time.monotonic() + STOP_SECONDS
        self._wake()

    def run(self) -> None:
        """Record until stop() is called."""
        while self._stop_by is None or (self._has_work() and time.monotonic() < self._stop_by):
            self._wakeup = Signal()
            next_batch = time.monotonic() + INTERVAL_SECONDS
            if not self._is_due():
                idle = self._idle_seconds()
                self.progress.report_idle(math.inf if idle is None else idle)
                self._wakeup.wait(timeout=idle)
                continue
            try:
                self._record_due()
            except ContainerBeingKilled:
                return
            eventlet.sleep(max(0.0, next_batch - time.monotonic()))
        self.progress.report_idle()

    def _wake(self) -> None:
        if not self._wakeup.ready():
            self._wakeup.send("woken")

    def _has_work(self) -> bool:
        return bool(self._results or self._failures)

    def _is_due(self) -> bool:
        return bool(self._failures) or any(result.due <= time.monotonic() for result in self._results)

    def _idle_seconds(self) -> float | None:
        """Return the time until the next result is due, in seconds; None if there is no result."""
        if not self._results:
            return None
        return max(0.0, min(result.due for result in self._results) - time.monotonic())

    def _record_due(self) -> None:
        if batch := self._take_batch():
            self._record(batch)
        failures, self._failures = self._failures, []
        if failures:
            self._postpone(failures)

    def _take_batch(self) -> list[Result]:
        """Remove and return the due results, one for each item. A postponed result whose lease has ended is dropped."""
        now = time.monotonic()
        batch: dict[str, Result] = {}
        kept = []
        for result in self._results:
            if result.due > now or result.item.key in batch or len(batch) == BATCH:
                kept.append(result)
            elif result.due and result.expires < now:
                log.warning("the result of %s %s is dropped: its lease has ended", result.item.kind, result.item.key)
            else:
                batch[result.item.key] = result
        self._results = kept
        return list(batch.values())

    def _record(self, batch: Sequence[Result]) -> None:
        """Record a batch in one transaction. If that fails, record each of its results in a transaction of its own."""
        self.progress.report_progress()
        results = {result.item.key: result for result in batch}

        def step(work: Any, handler: Any) -> tuple[dict[str, str | Later | None], set[str]]:
            held, locked = work_items.lock_held(work.session, [result.item for result in batch])
            outcomes = {key: result.outcome for key, result in results.items() if key in held}
            decided = handler.record(work.session, outcomes, work.publish) if outcomes else {}
            work_items.finish(work.session, (key for key, following in decided.items() if following is None))
            work_items.continue_with(
                work.session, {key: following for key, following in decided.items() if following is not None}
            )
            return decided, locked | held - decided.keys()

        try:
            decided, locked = self._in_transaction(step)
        except ContainerBeingKilled:
            raise
        except Exception as error:  # noqa: BLE001  (one bad result must not stop the others)
            self._after_failure(batch, error)
            return
        self._put_off(results[key] for key in locked)
        for kind in {following for following in decided.values() if isinstance(following, str)}:
            self._wake_lane(kind)  # one that is due later is found by the poll of its lane

    def _after_failure(self, batch: Sequence[Result], error: Exception) -> None:
        if is_general_outage(error):
            log.warning("%d results wait for the database (%s)", len(batch), error)
            self._put_off(batch)
        elif len(batch) > 1:
            for result in batch:
                self._record([result])
        elif isinstance(error, LockTimeout):
            self._put_off(batch)
        else:
            [result] = batch
            log.error("the result of %s %s cannot be recorded", result.item.kind, result.item.key, exc_info=error)
            self.fail(result.limits.failure(result.item, f"not recorded: {type(error).__name__}: {error}"))

    def _put_off(self, results: Iterable[Result]) -> None:
        for result in results:
            result.due = time.monotonic() + result.pauses.next_pause()
            self._results.append(result)

    def _postpone(self, failures: Sequence[Failure]) -> None:
        """Record failed attempts. If that fails, the items are claimed again when their leases end."""
        self.progress.report_progress()

        def step(work: Any, handler: Any) -> set[str]:
            held, locked = work_items.lock_held(work.session, [each.item for each in failures])
            postponed = [each for each in failures if each.item.key in held]
            work_items.postpone(work.session, postponed)
            if postponed and isinstance(handler, RecordsFailures):
                _record_failures(work.session, handler, postponed)
            return locked

        try:
            locked = self._in_transaction(step)
        except ContainerBeingKilled:
            raise
        except Exception as error:  # noqa: BLE001  (the next attempt follows when the lease ends)
            log.warning("%d failed attempts were not recorded (%s)", len(failures), error)
        else:
            for each in failures:
                if each.item.key in locked:
                    eventlet.spawn_after(LONGEST_PAUSE_SECONDS, self.fail, each)
                else:
                    eventlet.spawn_after(each.pause, self._wake_lane, each.item.kind)


def _record_failures(session: Session, handler: RecordsFailures, failures: Sequence[Failure]) -> None:
    """Let the handler record failures. An error of its own undoes only what it has written."""
    try:
        with session.begin_nested():
            handler.record_failures(session, failures)
    except Exception as error:
        if is_outage(error):
            raise
        log.exception("%d failed attempts are not kept", len(failures))
