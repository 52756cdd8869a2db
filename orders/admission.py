"""Whether one more order may be taken: not when it would probably not be decided in time."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

COUNT_SECONDS = 0.25
# An order is late when this share of its time has passed. So many late ones are a sign that deciding has become slow,
# whatever the limit is: an eighth of it, so that a few that hang refuse nobody.
LATE_SHARE = 1 / 12
LATE_LIMIT_SHARE = 1 / 8


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many orders are undecided, and how many of them late."""

    undecided: int = 0
    late: int = 0


class Admission:
    """One for each process. What other processes take is seen by counting anew, every COUNT_SECONDS at most."""

    def __init__(self, limit: int, deadline: timedelta, clock: Callable[[], float] = time.monotonic) -> None:
        """`limit` is how many orders may be undecided, over all replicas; each has `deadline` for its decision."""
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
            # Set before asking: while one counts, the others go by the count before.
            self._count_again_at = now + COUNT_SECONDS
            self._waiting, self._taken = count(), 0
        return self._waiting.undecided + self._taken < self.limit and self._waiting.late < self.late_limit

    def took_one(self) -> None:
        """Note that an order was taken since the last count."""
        self._taken += 1
