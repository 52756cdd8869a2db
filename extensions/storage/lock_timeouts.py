"""How long the transactions of one method wait for a row that another transaction has locked."""

import math
import time
from collections.abc import Callable

SHORT_SECONDS = 60.0


class LockTimeouts:
    """After a lock timeout, the next transactions have a shorter lock timeout, for SHORT_SECONDS.

    Otherwise many that need the row would hold the places of others, each for the usual time. A lock timeout in this
    period does not prolong it: a row may be locked briefly.
    """

    def __init__(self, usual: str, short: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Both are values of PostgreSQL's lock_timeout ("500ms"); "" is that of the engine."""
        self._usual, self._short, self._clock = usual, short, clock
        self._short_until = -math.inf

    @property
    def current(self) -> str:
        """How long the next transaction waits."""
        return self._short if self._is_short() else self._usual

    def note_timeout(self) -> None:
        """Note that a transaction had a lock timeout."""
        if not self._is_short():
            self._short_until = self._clock() + SHORT_SECONDS

    def _is_short(self) -> bool:
        return self._clock() < self._short_until
