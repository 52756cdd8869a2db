"""A stopwatch for tests of speed. It leaves out the time in which the process was not running on a busy machine."""

import time
from itertools import count

from eventlet import patcher

TICK = 0.02  # seconds

_threading, _time = patcher.original("threading"), patcher.original("time")
_ticks = count()
_now = [0]


def _tick():
    """Count short pauses. A pause takes longer while the process is not running, so they measure running time."""
    for _now[0] in _ticks:
        _time.sleep(TICK)


_threading.Thread(target=_tick, name="stopwatch", daemon=True).start()


class Stopwatch:
    """Runs from its creation on: `watch = Stopwatch(); ...; assert watch.seconds < 0.5`."""

    def __init__(self):
        self._began, self._first = time.monotonic(), _now[0]

    @property
    def wall(self):
        """The elapsed time, for assertions that something is not too fast."""
        return time.monotonic() - self._began

    @property
    def seconds(self):
        """The elapsed time without the time in which this process was not running, for assertions of speed."""
        return min(self.wall, (_now[0] - self._first + 1) * TICK)
