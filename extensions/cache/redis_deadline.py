"""How long a request waits for Redis. The time in which this process was busy does not count."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import eventlet
import redis
from eventlet.hubs import get_hub

from extensions.observability.traces import existing_trace

# A timer that runs this much too late shows that the process was busy, and may have no time for Redis' responses.
LATE_SECONDS = 0.01
# Then the deadline is extended by the time that the process lost, and by no less than this share of it.
MAX_EXTENSIONS, EXTENSION_SHARE = 3, 1 / 3
# A command that waited for less than this share of the whole time says nothing about Redis.
TELLING_SHARE = 1 / 3
# A shorter wait is no wait for Redis: the process did something else in the meantime.
SHORTEST_WAIT_SECONDS = 0.01


class TooSlow(redis.TimeoutError):
    """Redis did not respond within the deadline."""


class NoTimeLeft(redis.TimeoutError):
    """The request has waited for Redis before, so the command had little time or was not sent."""


@contextmanager
def of_request(seconds: float) -> Iterator[None]:
    """Let the block wait for Redis for the rest of `seconds`, which all commands of the current request share.

    Raises NoTimeLeft at once if nothing is left, and instead of TooSlow if so little was left that the failure says
    nothing about Redis. What is no request has the whole time for each block.
    """
    trace = existing_trace()
    waited = trace.redis_wait if trace else None
    if waited is None:
        with Deadline(seconds):
            yield
        return
    left = seconds - waited.seconds
    if left <= 0:
        raise NoTimeLeft
    try:
        with charged(), Deadline(left):
            yield
    except TooSlow as error:
        if left < TELLING_SHARE * seconds:
            raise NoTimeLeft from error
        raise


@contextmanager
def charged() -> Iterator[None]:
    """Count the time of the block as a wait of the request for Redis. Blocks at the same time count once."""
    trace = existing_trace()
    waited = trace.redis_wait if trace else None
    if waited is None:
        yield
        return
    before, began = waited.seconds, time.monotonic()
    try:
        yield
    finally:
        took = time.monotonic() - began
        if took >= SHORTEST_WAIT_SECONDS:
            waited.seconds = max(waited.seconds, before + took)


class Deadline:
    """Ends a block with TooSlow after some seconds in which this process was ready to read Redis' responses."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._greenlet: Any = None
        self._timer: Any = None
        self._due = 0.0
        self._extensions = 0

    def __enter__(self) -> None:
        self._greenlet = eventlet.getcurrent()
        self._schedule(self._seconds)

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()

    def _schedule(self, seconds: float) -> None:
        self._due = time.monotonic() + seconds
        self._timer = get_hub().schedule_call_global(seconds, self._expire)

    def _expire(self) -> None:
        late = time.monotonic() - self._due
        if late > LATE_SECONDS and self._extensions < MAX_EXTENSIONS:
            self._extensions += 1
            self._schedule(min(max(late, EXTENSION_SHARE * self._seconds), self._seconds))
            return
        # The hub runs timers before it reads sockets. So let it read once more: the response may have arrived.
        error = TooSlow(f"no response within {self._seconds * 1000:.0f} ms")
        self._timer = get_hub().schedule_call_global(0, self._greenlet.throw, error)
