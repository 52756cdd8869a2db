"""What many ask for at the same moment is done by one run; whoever asks alone waits for nobody.

`together(item, run)` hands an item in and returns what became of it. Where nothing is under way, a run begins at once.
What comes while one is under way waits for its end, and is then done by the next one, all of it together. A run that
takes long is not waited for: one that hangs must not keep everybody else from what they want.
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

# A batch that fails is done again one by one, so it must not be too many.
AT_MOST = 50
# So long a run may keep others waiting; then the next one begins beside it.
PATIENCE_SECONDS = 0.25
# For those whose caller has not said how long it waits.
LONGEST_WAIT_SECONDS = 30.0

Run = Callable[[Sequence[Any]], Sequence[Any]]
"""Does some items; returns the outcome of each, which is an exception where its caller is to get one."""


@dataclass(slots=True, eq=False)
class _Seat:
    """Somebody who waits, and with what."""

    item: Any
    run: Run
    outcome: Signal = field(default_factory=Signal)


class Batcher:
    """One for each process and each thing that is done together. Each run is of AT_MOST items."""

    def __init__(self) -> None:
        self._waiting: deque[_Seat] = deque()
        self._leader: object | None = None

    def __call__(self, item: Any, run: Run) -> Any:
        """Return what became of `item`, or raise it. Of those that come together, the first one's `run` is called.

        It runs in a greenlet of its own: who waits can be killed or lose patience, and the others never notice. Such
        a one is taken out; once its run has begun, nobody can tell any more what comes of it. Raises ServiceUnavailable
        and UpstreamTimeout where the caller's time was over before and after that.
        """
        seat = _Seat(item, run)
        self._waiting.append(seat)
        if self._leader is None:
            self._lead()
        trace = current_trace()
        try:
            outcome = seat.outcome.wait(trace.remaining(PATIENCE_SECONDS))
            if outcome is None and trace.remaining(1.0):
                if seat in self._waiting:
                    self._lead()
                outcome = seat.outcome.wait(trace.remaining(LONGEST_WAIT_SECONDS))
        finally:
            was_waiting = seat in self._waiting
            if was_waiting:
                self._waiting.remove(seat)
        if outcome is None:
            raise ServiceUnavailable(retry_after=1) if was_waiting else UpstreamTimeout
        (result,) = outcome
        if isinstance(result, BaseException):
            raise result
        return result

    def _lead(self) -> None:
        """Have a new leader, who runs what waits until nobody does; the one before, if any, ends after its run."""
        self._leader = object()
        eventlet.spawn(self._run_all, self._leader)

    def _run_all(self, leader: object) -> None:
        try:
            while self._waiting and self._leader is leader:
                _run([self._waiting.popleft() for _ in range(min(AT_MOST, len(self._waiting)))])
        finally:
            if self._leader is leader:
                self._leader = None
                if self._waiting:  # this greenlet was killed: nobody is left behind
                    self._lead()


def _run(seats: Sequence[_Seat]) -> None:
    """Let all of `seats` know what became of them, whatever happens."""
    told: Sequence[tuple[_Seat, Any]] = [(seat, UpstreamTimeout()) for seat in seats]
    try:
        told = list(zip(seats, seats[0].run([seat.item for seat in seats]), strict=True))
    except (Exception, *INTERRUPTIONS) as error:  # noqa: BLE001  (it is raised by those who wait)
        told = [(seat, error) for seat in seats]
    finally:
        for seat, outcome in told:
            seat.outcome.send((outcome,))


class BatcherProvider(DependencyProvider):
    """Gives a service a Gathering: `together = Together()`."""

    def setup(self) -> None:
        """Begin with nobody waiting."""
        self.gathering = Batcher()

    def get_dependency(self, worker_ctx: Any) -> Batcher:
        """Return what gathers; all workers share it."""
        return self.gathering
