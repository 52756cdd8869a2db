"""What is refused at once because there is too much to do, here or in the service behind a route."""

import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

from eventlet.event import Event as Signal
from eventlet.semaphore import Semaphore

from contracts.errors import Overloaded, ServiceError
from extensions.http.message.errors import OVERLOAD_RETRY_SECONDS, TooManyAtOnce

# How much the newest request counts in the mean of how long one occupies its worker.
NEWEST_SHARE = 0.05
# By the mean alone, half of those who wait longest would miss their deadline.
SAFETY = 1.5
# So long after an overload nobody is queued for it: who waited would mostly be refused in the end.
NO_QUEUE_SECONDS = 10.0
# So long is a refusal given to everybody who asks for what is made once for all.
REFUSAL_SECONDS = 0.5


class Bulkhead:
    """The workers that requests share, and the queue for them: so short that nobody waits in it in vain."""

    def __init__(self, workers: int, max_requests: int) -> None:
        """`max_requests` may have or await a worker; fewer where one request takes long."""
        self._workers, self._max_requests = workers, max_requests
        self._free = Semaphore(workers)
        self._in_flight = 0
        self._mean_seconds = 0.0

    @property
    def in_flight(self) -> int:
        """How many have or await a worker."""
        return self._in_flight

    def require_room(self, seconds: float) -> None:
        """Raise Overloaded where the answer would come later than in `seconds`."""
        if self._in_flight >= self._max_requests or not self._can_answer_within(seconds):
            raise _overloaded()

    def take(self, seconds: float) -> None:
        """Wait for a worker. Raises Overloaded at once where the answer would come later than in `seconds`."""
        self.require_room(seconds)
        self._in_flight += 1
        if not self._free.acquire(timeout=max(0.0, seconds - SAFETY * self._mean_seconds)):
            self._in_flight -= 1
            raise _overloaded()

    def give_back(self) -> None:
        """End one's turn."""
        self._in_flight -= 1
        self._free.release()

    def note(self, seconds: float) -> None:
        """Learn how long a request has occupied its worker."""
        self._mean_seconds += NEWEST_SHARE * (seconds - self._mean_seconds)

    def _can_answer_within(self, seconds: float) -> bool:
        waiting = self._in_flight - self._workers + 1
        return waiting <= 0 or (waiting / self._workers + SAFETY) * self._mean_seconds <= seconds


class UserQuota:
    """How many requests each user has under way: one alone must not take all there is."""

    def __init__(self, most: int) -> None:
        """`most` are allowed, to each user; 0 means any number."""
        self._most = most
        self._held: Counter[Hashable] = Counter()

    @contextmanager
    def one_of(self, user: Hashable) -> Iterator[None]:
        """Hold one of the user's requests; nobody in particular may have any number. Raises TooManyAtOnce."""
        if user is None or not self._most:
            yield
            return
        if self._held[user] >= self._most:
            raise TooManyAtOnce.over(self._most)
        self._held[user] += 1
        try:
            yield
        finally:
            self._held[user] -= 1
            if not self._held[user]:
                del self._held[user]


class SharedResponse:
    """An answer that is the same for everybody: made once for all who wait for it, and kept for a while."""

    def __init__(self, seconds: float) -> None:
        """It may be `seconds` old; a refusal REFUSAL_SECONDS at most."""
        self._seconds = seconds
        self._outcome: Signal | None = None
        self._began = 0.0

    def outcome(self, begin: Callable[[Signal], None]) -> Signal:
        """Return what brings the answer, or has brought it. `begin` sees to it that somebody sends a new one."""
        if self._outcome is None or self._is_old(self._outcome):
            self._outcome, self._began = Signal(), time.monotonic()
            try:
                begin(self._outcome)
            except ServiceError as error:
                self._outcome.send(error)
        return self._outcome

    def _is_old(self, outcome: Signal) -> bool:
        if not outcome.ready():
            return False
        seconds = min(self._seconds, REFUSAL_SECONDS) if isinstance(outcome.wait(), ServiceError) else self._seconds
        return time.monotonic() - self._began > seconds


class CircuitBreaker:
    """What a route is given when its service says that it is overloaded: it is not asked again before it wants to."""

    def __init__(self) -> None:
        self._until = self._no_queue_until = 0.0
        self._reason = _overloaded()

    def begin(self, reason: Overloaded) -> None:
        """Let the service rest for as long as it says."""
        self._until = time.monotonic() + (reason.retry_after or OVERLOAD_RETRY_SECONDS)
        self._no_queue_until = self._until + NO_QUEUE_SECONDS
        self._reason = reason

    def patience(self, seconds: float) -> float:
        """Return how long a request that could wait for `seconds` should: not at all, soon after an overload."""
        return 0.0 if time.monotonic() < self._no_queue_until else seconds

    def check(self) -> None:
        """Raise what the service said, while it rests."""
        if time.monotonic() < self._until:
            raise Overloaded(str(self._reason), retry_after=self._reason.retry_after)


def _overloaded() -> Overloaded:
    detail = "The gateway has too much to do. Nothing was done; try again shortly."
    return Overloaded(detail, retry_after=OVERLOAD_RETRY_SECONDS)
