"""Admission control: limits how many orders are undecided at the same time; further new orders wait in a queue.

Pure code: `clock` gives the time, and the caller gives the number of undecided orders. The waiting itself is in
orders/providers.py.
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
# While the first order in the queue has less time left than this, no order joins: more orders arrive than are decided.
LATE_SECONDS = 0.5
# A process places at most this many orders at once. Further ones would only take processor time from the decisions.
MOST_PLACING = 16
# While no order is decided, new orders are let in until this many are undecided but not late.
PROBES = 4
# While no order is decided, the limit is at least this share of the highest one: it was measured under the load before,
# and a small shop would soon refuse orders that only wait for a service that is restarted.
STALLED_SHARE = 0.25
# Over the limit, each decided order still adds a credit of 1 for a new order; far over it (undecided orders above
# FAR_OVER times the limit) only REPLACED_SHARE. The credit never exceeds MOST_CREDIT. The limit differs between
# processes: without the credit, the process with the lowest limit would let in no orders.
FAR_OVER, REPLACED_SHARE, MOST_CREDIT = 1.25, 0.85, 2.0
# The limit before anything was measured.
FIRST_LIMIT = 32
# The limit never falls below this, because a decision takes some time on any machine.
LOWEST_LIMIT = 16
# The limit is adjusted after SAMPLES decisions. Two adjustments are at least ADJUST_SECONDS apart, or as long as a
# decision takes if that is longer.
SAMPLES, ADJUST_SECONDS = 8, 0.5
# One adjustment changes the limit by at most these factors.
SHRINK, GROW = 0.7, 1.3
# Each adjustment multiplies the unavoidable time of a decision by this factor, so that it is measured anew.
FADE = 0.98
# If the number of orders fell to FEWER of the earlier number or below, and a decision still takes more than SAME of the
# earlier time, then fewer orders do not make decisions faster.
FEWER, SAME = 0.8, 0.9
# Shares of the deadline. The target is at most the first, unless the settings ask for a longer one. An order counts as
# late after a time between the second and the third.
LONGEST_TARGET_SHARE, LATE_SHARE, STUCK_SHARE = 1 / 6, 1 / 12, 1 / 3


def refusal() -> Overloaded:
    """Return the error for an order that is refused."""
    return Overloaded("Too many orders wait for their decision. Nothing was done; try again shortly.", retry_after=1)


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many orders are undecided, and how many of these are late (`Limit.late_after`)."""

    undecided: int = 0
    late: int = 0


class Limit:
    """How many orders may be undecided, derived from the time that decisions take.

    While as many orders are undecided as the limit permits, a decision takes limit / rate (Little's law). The rate is
    the number of decisions per second. The limit is raised while decisions are faster than the target, and lowered
    while they are slower. So it converges to rate x target on any machine. Each process adjusts its own limit. All
    processes measure the same decisions, or a fair sample.
    """

    def __init__(
        self,
        highest: int,
        target: timedelta,
        deadline: timedelta,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`target` is how long a decision should take under high load. `deadline` is how long it may take at most.

        The limit is at most `highest`, which also bounds the undecided orders including the late ones.
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
    def while_stalled(self) -> int:
        """The limit while no order is decided."""
        return max(self.value, int(self.highest * STALLED_SHARE))

    @property
    def target(self) -> float:
        """The time that a decision may take, in seconds.

        It is raised to twice the time that a decision takes with few orders. Most of that time may be spent elsewhere
        (a slow payment provider), and then a lower limit would not make decisions faster.
        """
        return max(self._target, min(2 * self._unavoidable, self._deadline * LONGEST_TARGET_SHARE))

    @property
    def late_after(self) -> timedelta:
        """An order that is undecided for longer is late: it waits for something that other orders do not need."""
        seconds = max(3 * self._typical, self._deadline * LATE_SHARE)
        return timedelta(seconds=min(seconds, self._deadline * STUCK_SHARE))

    @property
    def is_deciding(self) -> bool:
        """Tell whether an order was decided lately. If not, all orders wait for the same cause."""
        return self._clock() - self._decided_at < self.late_after.total_seconds()

    def observe(self, seconds: float) -> None:
        """Record a decision that took `seconds`."""
        self._samples.append(max(0.0, seconds))
        self._decided_at = self._clock()

    def adjust(self, undecided: int) -> None:
        """Adjust the limit to the decisions since the last adjustment; `undecided` orders are undecided now."""
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
        """Estimate the part of a decision's time that does not get shorter with fewer orders."""
        before, took = self._compared
        fewer = undecided <= FEWER * before
        if few or (fewer and self._typical > SAME * took):
            self._unavoidable = self._typical
        else:
            self._unavoidable = min(self._typical, self._unavoidable * FADE)
        if fewer or undecided > before or self._typical * SAME > took:
            self._compared = undecided, self._typical

    def _change(self, undecided: int, *, few: bool) -> None:
        # The square root makes the step smaller: its effect shows only after the orders before it are decided.
        factor = min(GROW, max(SHRINK, (self.target / max(self._typical, 0.001)) ** 0.5))
        if factor > 1 and undecided < self._limit / 2:
            return  # half of the limit was not used, so no measurement shows that a higher limit is possible
        if factor < 1 and few:
            return
        self._limit = min(self.highest, max(self._lowest, self._limit * factor))


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    """A new order in the queue. It must be let in before `until`, when its caller has no time left."""

    ticket: Any
    until: float


class Admission:
    """The new orders of one process: those that are being placed, and those in the queue, in arrival order.

    The orders of other processes are counted in the database, at most every COUNT_SECONDS. Between two counts, a
    process adds the orders that it placed, and subtracts the decisions that it saw.
    """

    def __init__(self, limit: Limit, most_waiting: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`most_waiting` bounds the number of orders that wait."""
        self.limit = limit
        self._most_waiting, self._clock = most_waiting, clock
        self._counted = Waiting()
        self._placing = self._placed = self._decided = 0
        self._queue: deque[_Waiter] = deque()
        self._stalled = False
        self._counts = 0
        self._credit = 0.0
        self._count_again_at = clock()

    @property
    def waiting(self) -> int:
        """How many orders are in the queue."""
        return len(self._queue)

    @property
    def has_room(self) -> bool:
        """Tell whether one more order may be placed.

        While orders are being decided, late orders do not count, so that they delay no others. While none is decided,
        all count, against a limit of its own. Up to PROBES new orders are let in anyway, to find out whether they are
        decided. Over the limit,
        which may have been lowered, new orders still replace decided ones (credit). Otherwise the queue would not move.
        """
        undecided = self._counted.undecided + self._placing + self._placed - self._decided
        fresh = undecided - self._counted.late
        if undecided >= self.limit.highest or self._placing >= MOST_PLACING:
            return False
        if self.limit.is_deciding:
            return fresh < self.limit.value or self._credit >= 1
        return undecided < self.limit.while_stalled or fresh < PROBES

    def require_capacity(self) -> None:
        """Raise Overloaded if an order that arrives now would be refused. Called before any work for the order."""
        if (self._queue or not self.has_room) and self._is_overloaded():
            raise refusal()

    def recount(self, count: Callable[[], Waiting]) -> None:
        """Count the undecided orders of all processes with `count()`, if the last count is COUNT_SECONDS old."""
        now = self._clock()
        if now < self._count_again_at:
            return
        # Set before the count, so that concurrent callers use the previous result.
        self._count_again_at = now + COUNT_SECONDS
        self._counts += 1
        number, placed, decided = self._counts, self._placed, self._decided
        counted = count()
        if number != self._counts:
            return  # a newer count has begun meanwhile
        self._counted = counted
        self._placed -= placed
        self._decided -= decided
        self.limit.adjust(self._counted.undecided - self._counted.late)

    def enter(self, ticket: Any, seconds: float) -> bool:
        """Return True if an order may be placed now. Return False if it waits; `admitted()` will return its `ticket`.

        The order waits for at most `seconds`. Raises Overloaded if it would probably not be let in in time: the
        queue is full, its first order has less than LATE_SECONDS left, or an order ran out of time and none was let in
        since.
        """
        if not self._queue and self.has_room:
            self._begin()
            return True
        if seconds <= 0 or self._is_overloaded():
            raise refusal()
        self._queue.append(_Waiter(ticket, self._clock() + seconds))
        return False

    def admitted(self) -> Any:
        """Let in the first order of the queue and return its ticket; None if there is no room or no order."""
        if not self._queue or not self.has_room:
            return None
        self._begin()
        return self._queue.popleft().ticket

    def leave(self, ticket: Any) -> None:
        """Remove an order from the queue, if it is still there."""
        waiter = next((waiter for waiter in self._queue if waiter.ticket is ticket), None)
        if waiter is None:
            return
        self._queue.remove(waiter)
        self._stalled = self._stalled or self._clock() >= waiter.until

    def placed(self) -> None:
        """Count an order that was stored."""
        self._placed += 1

    def ended(self) -> None:
        """Count the end of a call that was let in, whether it placed an order or not."""
        self._placing -= 1

    def decided(self, seconds: float | None) -> None:
        """Count a decision that took `seconds`; None if the order was cancelled at its deadline."""
        self._decided += 1
        is_far_over = self._counted.undecided - self._counted.late > FAR_OVER * self.limit.value
        self._credit = min(MOST_CREDIT, self._credit + (REPLACED_SHARE if is_far_over else 1.0))
        if seconds is not None:
            self.limit.observe(seconds)

    def _begin(self) -> None:
        self._credit = max(0.0, self._credit - 1)
        self._placing += 1
        self._stalled = False

    def _is_overloaded(self) -> bool:
        """Tell whether an order that joins the queue now would probably not be let in in time."""
        is_late = bool(self._queue) and self._clock() > self._queue[0].until - LATE_SECONDS
        return len(self._queue) >= self._most_waiting or self._stalled or is_late
