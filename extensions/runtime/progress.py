"""The progress of the loops of a service. A loop that has not reported for longer than its bound is stuck.

    with loops_of(self.container).running("outbox.relay") as loop:
        while True:
            loop.report_progress()  # reports again within the bound
            ...
            loop.report_idle(SWEEP_SECONDS)  # reports again within that time and the bound; without a time, no limit
            self._wakeup.wait(timeout=SWEEP_SECONDS)

A loop that waits for work is not stuck, however long it waits. A loop that retries an unavailable server is not stuck
either: each try has a deadline and is reported. So only a defect makes a loop stuck. An outage does not.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

# Bounds of a round. A round that uses PostgreSQL or RabbitMQ waits for a statement for at most 15 s, and for a call of
# the publisher for at most 27 s. Another round only computes.
SERVER_SECONDS = 120.0
LOCAL_SECONDS = 30.0


class Loop:
    """One loop. `bound`: the maximum seconds between two reports while it works. The default is SERVER_SECONDS."""

    def __init__(self, name: str, bound: float | None = None) -> None:
        self.name, self.bound = name, SERVER_SECONDS if bound is None else bound
        self._reported = self._due = 0.0
        self.report_progress()

    def report_progress(self) -> None:
        """Report progress: a round of work begins, or a step of it is done."""
        self._reported = time.monotonic()
        self._due = self._reported + self.bound

    def report_idle(self, seconds: float = math.inf) -> None:
        """Report progress: the loop now waits for work, `seconds` at most."""
        self._reported = time.monotonic()
        self._due = self._reported + seconds + self.bound

    @property
    def is_stuck(self) -> bool:
        """Tell whether the next report is overdue."""
        return time.monotonic() > self._due

    @property
    def age(self) -> float:
        """The seconds since the last report; 0 while the loop waits for work without a time limit."""
        return 0.0 if self._due == math.inf else time.monotonic() - self._reported


class Loops:
    """The loops of one service in one process. Several loops may have the same name."""

    def __init__(self) -> None:
        self._loops: list[Loop] = []
        self._names: set[str] = set()
        self.on_new_name: Callable[[str], object] = lambda _name: None
        """Called with each name that is new."""
        self.has_started = False
        """True once the service consumes its queues."""

    def add(self, loop: Loop) -> None:
        """Watch `loop`."""
        self._loops.append(loop)
        if loop.name not in self._names:
            self._names.add(loop.name)
            self.on_new_name(loop.name)

    def remove(self, loop: Loop) -> None:
        """Stop watching `loop`: it has ended."""
        self._loops.remove(loop)

    @contextmanager
    def running(self, name: str, bound: float | None = None) -> Iterator[Loop]:
        """Watch a loop inside the block."""
        loop = Loop(name, bound)
        self.add(loop)
        try:
            yield loop
        finally:
            self.remove(loop)

    def names(self) -> set[str]:
        """Return the names of the loops that run now."""
        return {loop.name for loop in self._loops}

    def age(self, name: str) -> float:
        """Return the age of the loop of this name that has not reported for longest, 0 without one."""
        return max((loop.age for loop in self._loops if loop.name == name), default=0.0)

    def is_stuck(self, name: str) -> bool:
        """Tell whether a loop of this name is stuck."""
        return any(loop.is_stuck for loop in self._loops if loop.name == name)

    def stuck(self) -> dict[str, float]:
        """Return the names of the stuck loops, and for how many seconds each has not reported."""
        return {name: self.age(name) for name in sorted({loop.name for loop in self._loops if loop.is_stuck})}

    def problem(self) -> str:
        """Name the stuck loops in words; "" if there are none."""
        stuck = ", ".join(f"{name} ({age:.0f} s)" for name, age in self.stuck().items())
        return f"stuck: {stuck}" if stuck else ""


def loops_of(container: Any) -> Loops:
    """Return the loops of the service that a container runs."""
    loops: Loops = vars(container).setdefault("watched_loops", Loops())
    return loops


_current: ContextVar[Loop | None] = ContextVar("loop", default=None)


def set_current_loop(loop: Loop | None) -> None:
    """Set the loop that waits for this greenlet, a worker, so that report_current_progress() reports its progress."""
    _current.set(loop)


def report_current_progress() -> None:
    """Report progress of the loop that waits for this greenlet, if there is one."""
    loop = _current.get()
    if loop is not None:
        loop.report_progress()
