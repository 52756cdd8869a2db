"""A circuit breaker for work items: while most calls fail, only a probe is made now and then."""

import time
from collections import OrderedDict
from collections.abc import Callable

WATCHED = 20
"""How many callers count: those with the latest outcomes."""
MIN_FAILED = 10
LATELY_SECONDS = 30.0
FIRST_PROBE_SECONDS, LONGEST_PROBE_SECONDS = 1.0, 8.0

# Not the CircuitBreaker of extensions/runtime, which counts calls: here one payment that is repeated for hours must
# count once. Nor does this one refuse calls: it is asked before items are claimed, and those not claimed stay due.


class WorkItemBreaker:
    """Opens when more than half of the callers failed, and at least MIN_FAILED did.

    Counted are the last WATCHED callers, with outcomes of the last LATELY_SECONDS. Of each caller only the latest
    outcome counts: one payment that fails for hours says nothing about the others. An open breaker permits a probe
    after 1, 2, 4 and then every 8 seconds. The first success closes it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._latest: OrderedDict[str, tuple[bool, float]] = OrderedDict()
        self._probe_at = 0.0
        self._pause = FIRST_PROBE_SECONDS
        self.is_open = False

    def succeeded(self, caller: str) -> None:
        """Note that a call got a response."""
        if self.is_open:
            self.is_open = False
            self._latest.clear()
        self._note(caller, failed=False)

    def failed(self, caller: str) -> None:
        """Note that a call failed."""
        self._note(caller, failed=True)
        if not self.is_open and self._most_failed():
            self.is_open, self._pause = True, FIRST_PROBE_SECONDS
            self._probe_at = self._clock() + self._pause

    def permits(self) -> bool:
        """Tell whether calls may be made now. While the breaker is open, True permits a single one: a probe."""
        return not self.is_open or self._clock() >= self._probe_at

    def probes(self) -> None:
        """Note that a probe is made. `permits` does not note it, because its caller may find that nothing is due."""
        self._pause = min(self._pause * 2, LONGEST_PROBE_SECONDS)
        self._probe_at = self._clock() + self._pause

    def _note(self, caller: str, *, failed: bool) -> None:
        self._latest[caller] = failed, self._clock()
        self._latest.move_to_end(caller)
        if len(self._latest) > WATCHED:
            self._latest.popitem(last=False)

    def _most_failed(self) -> bool:
        since = self._clock() - LATELY_SECONDS
        lately = [failed for failed, at in self._latest.values() if at >= since]
        return sum(lately) >= MIN_FAILED and 2 * sum(lately) > len(lately)
