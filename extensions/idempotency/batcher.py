"""Combines concurrent calls into batches (group commit). A single caller runs immediately.

`batcher(item, run)` adds an item and returns its outcome. If no batch is running, one starts immediately. Items that
arrive while a batch is running wait for its end and form the next batch. If a batch takes longer than
MAX_DELAY_SECONDS, the next one starts beside it, so that a batch that hangs does not block the others.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import eventlet
from eventlet.event import Event as Signal
from nameko.extensions import DependencyProvider

from contracts.errors import ServiceUnavailable, UpstreamTimeout
from extensions.observability.traces import current_trace
from extensions.runtime.interruptions import INTERRUPTIONS

# The calls of a batch that fails are repeated one by one, so a batch must not be too large.
MAX_BATCH = 50
# The longest time that a running batch delays the next one.
MAX_DELAY_SECONDS = 0.25
# For calls without a deadline.
DEFAULT_TIMEOUT_SECONDS = 30.0

Run = Callable[[Sequence[Any]], Sequence[Any]]
"""Processes a batch of items; returns the outcome of each. If an outcome is an exception, the caller of
this item raises it."""


@dataclass(slots=True, eq=False)
class _Waiter:
    """A caller that waits for the outcome of its item."""

    item: Any
    run: Run
    outcome: Signal = field(default_factory=Signal)


class Batcher:
    """The batches of one kind of call in one process. A batch has at most MAX_BATCH items."""

    def __init__(self) -> None:
        self._waiting: deque[_Waiter] = deque()
        self._leader: object | None = None

    def __call__(self, item: Any, run: Run) -> Any:
        """Return the outcome of `item`, or raise it. A batch is processed by the `run` of its first item.

        The batch runs in a separate greenlet, because waiting callers may be cancelled or time out; the other calls
        of the batch are not affected. A cancelled waiter is removed from the queue. Raises ServiceUnavailable if the
        caller's deadline passes before its batch starts, UpstreamTimeout if it passes afterwards: then the outcome is
        unknown.
        """
        waiter = _Waiter(item, run)
        self._waiting.append(waiter)
        if self._leader is None:
            self._start_leader()
        trace = current_trace()
        try:
            outcome = waiter.outcome.wait(trace.remaining(MAX_DELAY_SECONDS))
            if outcome is None and trace.remaining(1.0):
                if waiter in self._waiting:
                    self._start_leader()
                outcome = waiter.outcome.wait(trace.remaining(DEFAULT_TIMEOUT_SECONDS))
        finally:
            was_waiting = waiter in self._waiting
            if was_waiting:
                self._waiting.remove(waiter)
        if outcome is None:
            raise ServiceUnavailable(retry_after=1) if was_waiting else UpstreamTimeout
        (result,) = outcome
        if isinstance(result, BaseException):
            raise result
        return result

    def _start_leader(self) -> None:
        """Start a greenlet that runs batches until the queue is empty. A previous leader ends after its batch."""
        self._leader = object()
        eventlet.spawn(self._run_all, self._leader)

    def _run_all(self, leader: object) -> None:
        try:
            while self._waiting and self._leader is leader:
                _run([self._waiting.popleft() for _ in range(min(MAX_BATCH, len(self._waiting)))])
        finally:
            if self._leader is leader:
                self._leader = None
                if self._waiting:  # this greenlet was killed: another one serves the remaining callers
                    self._start_leader()


def _run(batch: Sequence[_Waiter]) -> None:
    """Process a batch and send each waiter its outcome; after an exception, send all of them the exception."""
    outcomes: Sequence[tuple[_Waiter, Any]] = [(waiter, UpstreamTimeout()) for waiter in batch]
    try:
        outcomes = list(zip(batch, batch[0].run([waiter.item for waiter in batch]), strict=True))
    except (Exception, *INTERRUPTIONS) as error:  # noqa: BLE001  (each caller raises it)
        outcomes = [(waiter, error) for waiter in batch]
    finally:
        for waiter, outcome in outcomes:
            waiter.outcome.send((outcome,))


class BatcherProvider(DependencyProvider):
    """Gives a service a Batcher: `batcher = BatcherProvider()`."""

    def setup(self) -> None:
        """Create the batcher."""
        self.batcher = Batcher()

    def get_dependency(self, worker_ctx: Any) -> Batcher:
        """Return the batcher; all workers share it."""
        return self.batcher
