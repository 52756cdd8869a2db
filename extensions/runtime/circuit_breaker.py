"""Circuit breaker: while a dependency does not respond, calls to it are refused, except for a probe now and then."""

import time
from collections.abc import Callable
from enum import StrEnum

# For callers that wait: it refuses their calls and says when to come again. Work items, for which nobody waits, have a
# breaker of their own, which counts payments and not calls (extensions/storage/work_items_breaker.py).

# The circuit opens if at least MIN_FAILURES calls of the last WINDOW_SECONDS failed, and at least half of all calls.
WINDOW_SECONDS = 10.0
MIN_FAILURES = 5
# From the end of a failed probe to the next probe.
PROBE_PAUSE_SECONDS = 1.0


class State(StrEnum):
    """What a circuit breaker does with calls."""

    CLOSED = "closed"
    """All calls pass."""
    OPEN = "open"
    """No call passes until the next probe is due."""
    HALF_OPEN = "half_open"
    """The probe is running, and no other call passes. Its outcome closes or opens the circuit."""


class CircuitOpen(Exception):
    """The call must not be made. `retry_after` is the number of seconds until the next probe is due."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"the circuit is open for {retry_after:.1f} s")
        self.retry_after = retry_after


class CircuitBreaker:
    """The circuit breaker of one dependency. Call `admit` before each call of the dependency, and `record` after it."""

    def __init__(self, on_change: Callable[[State], None] = lambda _state: None) -> None:
        """`on_change` is called with each new state."""
        self.state = State.CLOSED
        self._on_change = on_change
        self._probe_at = 0.0
        self._recent, self._earlier = _Outcomes(), _Outcomes()  # two halves of the window
        self._half_began = time.monotonic()

    def check(self) -> None:
        """Raise CircuitOpen if `admit` would raise it."""
        if self.state is State.CLOSED:
            return
        wait = self._probe_at - time.monotonic()
        if self.state is State.HALF_OPEN or wait > 0:
            raise CircuitOpen(max(wait, PROBE_PAUSE_SECONDS))

    def admit(self) -> bool:
        """Let a call pass, or raise CircuitOpen. Returns whether the call is the probe."""
        self.check()
        if self.state is State.CLOSED:
            return False
        self._change(State.HALF_OPEN)
        return True

    def record(self, *, failed: bool | None, is_probe: bool) -> None:
        """Record the end of a call that `admit` let pass. `failed` is None if it says nothing about the dependency."""
        if is_probe:
            self._close() if failed is False else self._open()
        elif self.state is State.CLOSED and failed is not None:
            self._count(failed)

    def probe_soon(self) -> None:
        """Make the next call the probe, because something else shows that the dependency responds again."""
        self._probe_at = 0.0

    def _count(self, failed: bool) -> None:
        now = time.monotonic()
        if now - self._half_began > WINDOW_SECONDS / 2:
            is_next_half = now - self._half_began < WINDOW_SECONDS
            self._earlier = self._recent if is_next_half else _Outcomes()
            self._recent, self._half_began = _Outcomes(), now
        self._recent.calls += 1
        self._recent.failures += failed
        failures = self._recent.failures + self._earlier.failures
        if failed and failures >= MIN_FAILURES and 2 * failures >= self._recent.calls + self._earlier.calls:
            self._open()

    def _open(self) -> None:
        self._probe_at = time.monotonic() + PROBE_PAUSE_SECONDS
        self._change(State.OPEN)

    def _close(self) -> None:
        self._recent, self._earlier = _Outcomes(), _Outcomes()
        self._change(State.CLOSED)

    def _change(self, state: State) -> None:
        if state is not self.state:
            self.state = state
            self._on_change(state)


class _Outcomes:
    """The number of calls, and of failed calls."""

    __slots__ = ("calls", "failures")

    def __init__(self) -> None:
        self.calls = self.failures = 0
