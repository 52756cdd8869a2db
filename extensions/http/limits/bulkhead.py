"""Bulkhead: the workers that a kind of request shares, with a bounded queue for them."""

from eventlet.semaphore import Semaphore

from extensions.http.message.errors import gateway_overloaded

# Weight of the newest duration in the exponential moving average.
NEWEST_SHARE = 0.05
# Half of the requests take longer than the average, so plan with more than the average.
SAFETY_FACTOR = 1.5


class Bulkhead:
    """Limits the requests that run or wait at the same time, and refuses those that would miss their deadline."""

    def __init__(self, workers: int, max_requests: int) -> None:
        """`workers` requests run at the same time. At most `max_requests` run or wait."""
        self._workers, self._max_requests = workers, max_requests
        self._free = Semaphore(workers)
        self._in_flight = 0
        self._mean_seconds = 0.0

    @property
    def in_flight(self) -> int:
        """Number of requests that run or wait."""
        return self._in_flight

    def require_capacity(self, timeout: float) -> None:
        """Raise Overloaded where a response would take longer than `timeout` seconds."""
        if self._in_flight >= self._max_requests or not self._can_respond_within(timeout):
            raise gateway_overloaded()

    def acquire(self, timeout: float) -> None:
        """Wait for a worker.

        Raises Overloaded: at once where a response would take longer than `timeout` seconds, later where the wait
        leaves too little time.
        """
        self.require_capacity(timeout)
        self._in_flight += 1
        if not self._free.acquire(timeout=max(0.0, timeout - SAFETY_FACTOR * self._mean_seconds)):
            self._in_flight -= 1
            raise gateway_overloaded()

    def release(self) -> None:
        """Free the worker that `acquire` returned."""
        self._in_flight -= 1
        self._free.release()

    def record_duration(self, seconds: float) -> None:
        """Update the average time that a request occupies its worker."""
        self._mean_seconds += NEWEST_SHARE * (seconds - self._mean_seconds)

    def _can_respond_within(self, timeout: float) -> bool:
        waiting = self._in_flight - self._workers + 1
        return waiting <= 0 or (waiting / self._workers + SAFETY_FACTOR) * self._mean_seconds <= timeout
