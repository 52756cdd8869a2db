"""Admission control: how many orders may be undecided at the same time, and which new orders wait for room.

Pure code: the time comes from `clock`, the number of undecided orders from the caller. orders/providers.py lets calls
wait.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from statistics import median
from typing import Any

from contracts.errors import Overloaded

COUNT_SECONDS = 0.25
# No order joins the queue while the first one has less time left: more arrive than are decided.
LATE_SECONDS = 0.5
# A process places so many orders at once. More would take the processor from the decisions, and not be placed sooner.
MOST_PLACING = 16
# So many orders may be young and undecided while no order is decided.
PROBES = 4
# Over the limit, an order is let in for each that is decided, or fewer if they are FAR_OVER it; at most MOST_CREDIT at
# once. Processes have different limits: without this, the one with the lowest would let in nobody.
FAR_OVER, REPLACED_SHARE, MOST_CREDIT = 1.25, 0.85, 2.0
# The limit before anything was measured.
FIRST_LIMIT = 32
# The limit never falls below this, because a decision takes some time on any machine.
LOWEST_LIMIT = 16
# The limit is adjusted after so many decisions, and at most once in this time or in the time that a decision takes.
SAMPLES, ADJUST_SECONDS = 8, 0.5
# One adjustment changes the limit by at most these factors.
SHRINK, GROW = 0.7, 1.3
# How fast the memory of a slow decision fades, for each adjustment.
FADE = 0.98
# If so many fewer orders take the same time, up to this share, then fewer orders do not help.
FEWER, SAME = 0.8, 0.9
# Shares of the deadline: the target never exceeds the first; an order that has waited for the second may be stuck, for
# the third is stuck.
LONGEST_TARGET_SHARE, LATE_SHARE, STUCK_SHARE = 1 / 6, 1 / 12, 1 / 3


def refusal() -> Overloaded:
    """Return the error for an order that is refused."""
    return Overloaded("Too many orders wait for their decision. Nothing was done; try again shortly.", retry_after=1)


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many orders are undecided, and how many of them late."""

    undecided: int = 0
    late: int = 0


class Limit:
    """How many orders may be undecided, derived from the time that decisions take.

    While the limit is used up, a decision takes limit / rate (Little's law). So the limit is raised while decisions are
    faster than the target and lowered while they are slower, and settles at rate x target, whatever the machine. Each
    process adjusts its own limit; all measure the same decisions, or a fair sample of them.
    """

    def __init__(
        self,
        highest: int,
        target: timedelta,
        deadline: timedelta,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`target` is how long a decision should take when many orders are placed; `deadline` is the longest time.

        `highest` bounds the undecided orders, also those that are stuck.
        """
        self.highest = highest
        self._lowest = min(LOWEST_LIMIT, highest)
        self._target, self._deadline = target.total_seconds(), deadline.total_seconds()
        self._clock = clock
        self._limit = float(min(FIRST_LIMIT, highest))
        self._samples: list[float] = []
        self._typical = 0.0
        self._unavoidable = 0.0
        self._compared = (0, 0.0)
        self._adjust_at = self._decided_at = clock()

    @property
    def value(self) -> int:
        """The limit now."""
        return int(self._limit)

    @property
    def target(self) -> float:
        """The time that a decision may take, in seconds.

        At least twice the time that it takes with few orders: if most of it is none of our work (a slow payment
        provider), fewer orders would not be decided sooner.
        """
        return max(self._target, min(2 * self._unavoidable, self._deadline * LONGEST_TARGET_SHARE))

    @property
    def late_after(self) -> timedelta:
        """An order that is undecided for longer waits for something of its own, while others are being decided."""
        seconds = max(3 * self._typical, self._deadline * LATE_SHARE)
        return timedelta(seconds=min(seconds, self._deadline * STUCK_SHARE))

    @property
    def is_deciding(self) -> bool:
        """Tell whether an order was decided lately. If not, all orders wait for the same thing."""
        return self._clock() - self._decided_at < self.late_after.total_seconds()

    def observe(self, seconds: float) -> None:
        """Record a decision that took so long."""
        self._samples.append(max(0.0, seconds))
        self._decided_at = self._clock()

    def adjust(self, undecided: int) -> None:
        """Adjust the limit to the decisions since the last time, with so many orders undecided now."""
        now = self._clock()
        if now < self._adjust_at or len(self._samples) < SAMPLES:
            return
        self._typical = median(self._samples)  # a few orders that hang do not change it
        self._samples.clear()
        self._adjust_at = now + max(ADJUST_SECONDS, self._typical)
        few = undecided <= self._lowest
        self._learn(undecided, few=few)
        self._change(undecided, few=few)

    def _learn(self, undecided: int, *, few: bool) -> None:
        """Learn how long decisions take that fewer orders would not speed up."""
        before, took = self._compared
        fewer = undecided <= FEWER * before
        if few or (fewer and self._typical > SAME * took):
            self._unavoidable = self._typical
        else:
            self._unavoidable = min(self._typical, self._unavoidable * FADE)
        if fewer or undecided > before or self._typical * SAME > took:
            self._compared = undecided, self._typical

    def _change(self, undecided: int, *, few: bool) -> None:
        # The root dampens: an adjustment shows its effect only after the orders before it are decided.
        factor = min(GROW, max(SHRINK, (self.target / max(self._typical, 0.001)) ** 0.5))
        if factor > 1 and undecided < self._limit / 2:
            return  # the limit was not used up, so nothing says that more is possible
        if factor < 1 and few:
            return
        self._limit = min(self.highest, max(self._lowest, self._limit * factor))


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    """A new order that waits for room. `until` is when its caller has no time left."""

    ticket: Any
    until: float


class Admission:
    """The new orders of one process: those that are being placed, and those that wait for room, in arrival order.

    Orders of other processes are seen by recounting, at most every COUNT_SECONDS. In between, a process replaces the
    orders that it has seen decided.
    """

    def __init__(self, limit: Limit, most_waiting: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`most_waiting` bounds the number of orders that wait."""
        self.limit = limit
        self._most_waiting, self._clock = most_waiting, clock
        self._counted = Waiting()
        self._placing = self._placed = self._decided = 0
        self._line: deque[_Waiter] = deque()
        self._stalled = False
        self._counts = 0
        self._credit = 0.0
        self._count_again_at = clock()

    @property
    def waiting(self) -> int:
        """How many orders wait for room."""
        return len(self._line)

    @property
    def has_room(self) -> bool:
        """Tell whether one more order may be placed.

        While others are decided, those that are stuck do not count, so that they delay no others. While none is, a few
        orders are let in all the same, to find out whether the next ones would be decided. Over the limit, which may
        just have been lowered, decided orders are replaced in part: else the queue would stand.
        """
        undecided = self._counted.undecided + self._placing + self._placed - self._decided
        fresh = undecided - self._counted.late
        if undecided >= self.limit.highest or self._placing >= MOST_PLACING:
            return False
        if self.limit.is_deciding:
            return fresh < self.limit.value or self._credit >= 1
        return undecided < self.limit.value or fresh < PROBES

    def require_chance(self) -> None:
        """Raise Overloaded where an order that arrives now would be refused: a cheap check before any work."""
        if (self._line or not self.has_room) and self._is_pointless():
            raise refusal()

    def recount(self, count: Callable[[], Waiting]) -> None:
        """Ask the database, by `count()`, for the undecided orders of all processes, if it is time to."""
        now = self._clock()
        if now < self._count_again_at:
            return
        # Set before counting: concurrent callers use the previous count.
        self._count_again_at = now + COUNT_SECONDS
        self._counts += 1
        number, placed, decided = self._counts, self._placed, self._decided
        counted = count()
        if number != self._counts:
            return  # this count took so long that another one has begun
        self._counted = counted
        self._placed -= placed
        self._decided -= decided
        self.limit.adjust(self._counted.undecided - self._counted.late)

    def enter(self, ticket: Any, seconds: float) -> bool:
        """Return True if an order may be placed now; False if it waits: `admitted()` will return its `ticket`.

        It may wait for `seconds`. Raises Overloaded where that would be of no use: too many wait, or the first of them
        has hardly any time left, or one had none left and no order was let in since.
        """
        if not self._line and self.has_room:
            self._begin()
            return True
        if seconds <= 0 or self._is_pointless():
            raise refusal()
        self._line.append(_Waiter(ticket, self._clock() + seconds))
        return False

    def admitted(self) -> Any:
        """Return the ticket of the first order in the queue, which may be placed now; None without room or orders."""
        if not self._line or not self.has_room:
            return None
        self._begin()
        return self._line.popleft().ticket

    def leave(self, ticket: Any) -> None:
        """Remove an order that does not wait any longer."""
        waiter = next((waiter for waiter in self._line if waiter.ticket is ticket), None)
        if waiter is None:
            return
        self._line.remove(waiter)
        self._stalled = self._stalled or self._clock() >= waiter.until

    def placed(self) -> None:
        """Count an order that was stored."""
        self._placed += 1

    def ended(self) -> None:
        """End a call that was let in, whether it placed an order or not."""
        self._placing -= 1

    def decided(self, seconds: float | None) -> None:
        """Count a decision; it took `seconds`, or None where the order's deadline made it."""
        self._decided += 1
        is_far_over = self._counted.undecided - self._counted.late > FAR_OVER * self.limit.value
        self._credit = min(MOST_CREDIT, self._credit + (REPLACED_SHARE if is_far_over else 1.0))
        if seconds is not None:
            self.limit.observe(seconds)

    def _begin(self) -> None:
        self._credit = max(0.0, self._credit - 1)
        self._placing += 1
        self._stalled = False

    def _is_pointless(self) -> bool:
        """Tell whether an order that joins the queue now would hardly be let in in time."""
        is_late = bool(self._line) and self._clock() > self._line[0].until - LATE_SECONDS
        return len(self._line) >= self._most_waiting or self._stalled or is_late
