"""Seconds as a machine that is not busy would count them, for tests that assert that something is quick."""

import time
from itertools import count

from eventlet import patcher

TICK = 0.005  # seconds

_threading, _time = patcher.original("threading"), patcher.original("time")
_ticks = count()
_now = [0]


def _tick():
    """Count pauses. While the machine lets this process wait, or has no processor for it, a pause takes longer."""
    for _now[0] in _ticks:
        _time.sleep(TICK)


_threading.Thread(target=_tick, name="stopwatch", daemon=True).start()


class Stopwatch:
    """Runs from its creation on: `watch = Stopwatch(); ...; assert watch.seconds < 0.5`."""

    def __init__(self):
        self._began, self._first = time.monotonic(), _now[0]

    @property
    def wall(self):
        """How long it has run: for what must not be too quick."""
        return time.monotonic() - self._began

    @property
    def seconds(self):
        """How long it has run, without the time in which this process was held up: for what must be quick."""
        return min(self.wall, (_now[0] - self._first + 1) * TICK)
