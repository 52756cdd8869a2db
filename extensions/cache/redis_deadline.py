"""A deadline for a few commands to Redis, which does not count the time in which this process was busy."""

import time
from types import TracebackType
from typing import Any

import eventlet
import redis
from eventlet.hubs import get_hub

# A timer that runs this much too late shows that the process was busy, and may have no time for Redis' responses.
LATE_SECONDS = 0.01
MAX_EXTENSIONS = 3


class TooSlow(redis.TimeoutError):
    """Redis did not respond within the deadline."""


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
        self._schedule()

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()

    def _schedule(self) -> None:
        self._due = time.monotonic() + self._seconds
        self._timer = get_hub().schedule_call_global(self._seconds, self._expire)

    def _expire(self) -> None:
        if time.monotonic() - self._due > LATE_SECONDS and self._extensions < MAX_EXTENSIONS:
            self._extensions += 1
            self._schedule()
            return
        # The hub runs timers before it reads sockets. So let it read once more: the response may have arrived.
        error = TooSlow(f"no response within {self._seconds * 1000:.0f} ms")
        self._timer = get_hub().schedule_call_global(0, self._greenlet.throw, error)
