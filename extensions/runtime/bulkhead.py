"""Bulkhead: the slots that requests of one kind share, with a bounded queue for them."""

from collections.abc import Callable

from eventlet.semaphore import Semaphore

from contracts.errors import ServiceUnavailable

# Weight of the newest duration in the exponential moving average.
NEWEST_SHARE = 0.05
# Half of the requests take longer than the average, so plan with more than the average.
SAFETY_FACTOR = 1.5


class Bulkhead:
    """Limits the requests that run or wait at the same time, and refuses those that would miss their deadline."""

    def __init__(self, slots: int, max_requests: int, refusal: Callable[[], ServiceUnavailable]) -> None:
        """`slots` requests run at the same time. At most `max_requests` run or wait. `refusal` makes the error."""
        self._slots, self._max_requests, self._refusal = slots, max_requests, refusal
        self._free = Semaphore(slots)
        self._in_flight = 0
        self._mean_seconds = 0.0

    @property
    def in_flight(self) -> int:
        """Number of requests that run or wait."""
        return self._in_flight

    def require_capacity(self, timeout: float) -> None:
        """Raise the refusal where a response would take longer than `timeout` seconds."""
        if self._in_flight >= self._max_requests or not self._can_respond_within(timeout):
            raise self._refusal()

    def acquire(self, timeout: float) -> None:
        """Wait for a slot.

        Raises the refusal: at once where a response would take longer than `timeout` seconds, later where the wait
        leaves too little time.
        """
        self.require_capacity(timeout)
        self._in_flight += 1
        acquired = False
        try:
            acquired = self._free.acquire(timeout=max(0.0, timeout - SAFETY_FACTOR * self._mean_seconds))
        finally:
            if not acquired:  # also where this greenlet is killed while it waits
                self._in_flight -= 1
        if not acquired:
            raise self._refusal()

    def release(self) -> None:
        """Free the slot that `acquire` returned."""
        self._in_flight -= 1
        self._free.release()

    def record_duration(self, seconds: float) -> None:
        """Update the average time that a request occupies its slot."""
        self._mean_seconds += NEWEST_SHARE * (seconds - self._mean_seconds)

    def _can_respond_within(self, timeout: float) -> bool:
        waiting = self._in_flight - self._slots + 1
        return waiting <= 0 or (waiting / self._slots + SAFETY_FACTOR) * self._mean_seconds <= timeout
