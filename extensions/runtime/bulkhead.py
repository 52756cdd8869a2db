"""Bulkhead: requests of one kind share a number of slots, and wait for a slot in a bounded queue."""

from collections.abc import Callable

from eventlet.semaphore import Semaphore

from contracts.errors import ServiceUnavailable

# Weight of the newest duration in the exponential moving average.
NEWEST_SHARE = 0.05
# Many requests take longer than the average, so estimates use the average times this factor.
SAFETY_FACTOR = 1.5


class Bulkhead:
    """Limits the requests that run or wait at the same time, and refuses those that would miss their deadline."""

    def __init__(self, slots: int, max_requests: int, refusal: Callable[[], ServiceUnavailable]) -> None:
        """At most `slots` requests run at the same time, and at most `max_requests` run or wait.

        `refusal()` returns the error for a refused request.
        """
        self._slots, self._max_requests, self._refusal = slots, max_requests, refusal
        self._free = Semaphore(slots)
        self._in_flight = 0
        self._mean_seconds = 0.0

    @property
    def in_flight(self) -> int:
        """Number of requests that run or wait."""
        return self._in_flight

    def require_capacity(self, timeout: float) -> None:
        """Raise the refusal if too many requests wait, or if a response would take longer than `timeout` seconds."""
        if self._in_flight >= self._max_requests or not self._can_respond_within(timeout):
            raise self._refusal()

    def acquire(self, timeout: float) -> None:
        """Wait for a slot.

        Raises the refusal at once if `require_capacity` does, and later if the wait has left too little time.
        """
        self.require_capacity(timeout)
        self._in_flight += 1
        acquired = False
        try:
            acquired = self._free.acquire(timeout=max(0.0, timeout - SAFETY_FACTOR * self._mean_seconds))
        finally:
            if not acquired:  # the wait timed out, or this greenlet was killed
                self._in_flight -= 1
        if not acquired:
            raise self._refusal()

    def release(self) -> None:
        """Free the slot that `acquire` has taken."""
        self._in_flight -= 1
        self._free.release()

    def record_duration(self, seconds: float) -> None:
        """Update the average time that a request occupies its slot."""
        self._mean_seconds += NEWEST_SHARE * (seconds - self._mean_seconds)

    def _can_respond_within(self, timeout: float) -> bool:
        waiting = self._in_flight - self._slots + 1
        return waiting <= 0 or (waiting / self._slots + SAFETY_FACTOR) * self._mean_seconds <= timeout
