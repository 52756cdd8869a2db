"""Concurrent misses of one key in a process lead to one load: a stampede reaches the database once.

A call that arrives while a load is in progress does not share it, because that load may have read before a change that
the caller knows of. It shares the next one, which begins with another look into the cache, so that it usually finds
what the first one has stored.

The processes of a service do not wait for each other. A gateway sends one call, and each process of the owning service
reads once; so the number of processes bounds the reads. A lock in Redis would cost a round trip for every miss, and a
wait where its holder has ended (decision 0021).
"""

from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

import eventlet
from eventlet.event import Event as Signal
from eventlet.semaphore import Semaphore

from contracts.errors import UpstreamTimeout
from extensions.observability.traces import current_trace

T = TypeVar("T")
# Of a caller without a deadline.
WAIT_SECONDS = 10.0


class SingleFlight:
    """The loads of one cache in one process."""

    def __init__(self) -> None:
        self._next: dict[Hashable, _Flight[Any]] = {}
        self._running: dict[Hashable, Semaphore] = {}

    def get(self, key: Hashable, read: Callable[[], T | None], load: Callable[[], T]) -> T:
        """Return `read()`, or `load()` if that is None, executed after this call and shared with other callers.

        Raises what they raise; UpstreamTimeout if the deadline of the caller passes before.
        """
        while True:
            flight = self._next.get(key)
            if flight is None:
                return self._lead(key, read, load)
            outcome = flight.outcome.wait(timeout=current_trace().remaining(WAIT_SECONDS))
            if outcome is None:
                raise UpstreamTimeout
            value, error = outcome
            if error is None:
                return value
            if isinstance(error, Exception):
                raise error
            # The caller that loaded was killed: another one loads.

    def _lead(self, key: Hashable, read: Callable[[], T | None], load: Callable[[], T]) -> T:
        flight: _Flight[T] = _Flight()
        self._next[key] = flight
        running = self._running.setdefault(key, Semaphore(1))
        outcome: tuple[Any, BaseException | None] = (None, GreenletEnded())
        try:
            with running:
                eventlet.sleep(0)  # lets all greenlets that are ready to run join
                self._close(key, flight)
                found = read()
                value = load() if found is None else found
                outcome = (value, None)
                return value
        except Exception as error:
            outcome = (None, error.with_traceback(None))
            raise
        finally:
            self._close(key, flight)
            flight.outcome.send(outcome)
            if key not in self._next and running.counter == 1:
                self._running.pop(key, None)

    def _close(self, key: Hashable, flight: "_Flight[Any]") -> None:
        """Let later calls begin the next flight."""
        if self._next.get(key) is flight:
            del self._next[key]


class GreenletEnded(BaseException):
    """The greenlet that loaded for others was killed."""


class _Flight(Generic[T]):
    __slots__ = ("outcome",)

    def __init__(self) -> None:
        self.outcome = Signal()
