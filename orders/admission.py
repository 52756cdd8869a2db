"""Admission control: whether one more order can be decided before its deadline."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

COUNT_SECONDS = 0.25
# An order is late when this share of its deadline has passed. Many late orders mean that deciding has become slow.
# The limit for late orders is this share of the limit for all, so that a few stuck orders block nothing.
LATE_SHARE = 1 / 12
LATE_LIMIT_SHARE = 1 / 8


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many orders are undecided, and how many of them late."""

    undecided: int = 0
    late: int = 0


class Admission:
    """One for each process. Orders taken by other processes are seen by recounting, at most every COUNT_SECONDS."""

    def __init__(self, limit: int, deadline: timedelta, clock: Callable[[], float] = time.monotonic) -> None:
        """`limit` is how many orders all replicas may have undecided; `deadline` is the time to decide one."""
        self.limit = limit
        self.late_limit = max(1, int(limit * LATE_LIMIT_SHARE))
        self.late_after = deadline * LATE_SHARE
        self._clock = clock
        self._waiting = Waiting()
        self._taken = 0
        self._count_again_at = clock()

    def has_room(self, count: Callable[[], Waiting]) -> bool:
        """Tell whether one more order may be taken. `count()` asks the database."""
        now = self._clock()
        if now >= self._count_again_at:
            # Set before counting: concurrent callers use the previous count.
            self._count_again_at = now + COUNT_SECONDS
            self._waiting, self._taken = count(), 0
        return self._waiting.undecided + self._taken < self.limit and self._waiting.late < self.late_limit

    def took_one(self) -> None:
        """Count an order that was taken after the last count."""
        self._taken += 1
