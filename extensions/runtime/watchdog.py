"""Ends the process if a loop stays stuck, so that Docker, the launcher or Kubernetes starts it again.

Docker marks a container as unhealthy, and does not restart it for that reason; it does restart one that has ended. A
stop could hang in the stuck loop, so the process ends at once, as in a crash: what was not acknowledged is delivered
again.

A native thread checks, because a call that blocks the whole process blocks every greenlet. To detect such a call, a
greenlet of the event loop (`hub`) reports progress once a second.
"""

import logging
import os
from collections.abc import Callable
from typing import Any

import eventlet
from eventlet.patcher import original

from extensions.runtime.progress import LOCAL_SECONDS, Loops

log = logging.getLogger(__name__)

CHECK_SECONDS = 1.0
EXIT_CODE = 70  # EX_SOFTWARE: a defect


class Watchdog:
    """Ends the process where loops were stuck in `seconds` checks in a row, one a second.

    Checks are counted instead of elapsed time, because after a suspension the first checks see outdated reports.
    """

    def __init__(self, loops: Loops, seconds: float, end: Callable[[int], object] = os._exit) -> None:
        self._loops, self._seconds, self._end = loops, seconds, end
        self._stuck_checks = 0
        self._hub: Any = None
        self._stopped = False

    def start(self) -> None:
        """Start the thread, and the greenlet of the event loop."""
        self._hub = eventlet.spawn(self._beat)
        original("threading").Thread(target=self._check_all, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Stop the greenlet now, and the thread at its next check."""
        self._stopped = True
        if self._hub is not None:
            self._hub.kill()

    def _beat(self) -> None:
        with self._loops.running("hub", LOCAL_SECONDS) as loop:
            while True:
                loop.report_progress()
                eventlet.sleep(CHECK_SECONDS)

    def check(self) -> None:
        """Count this check, and end the process if it is time."""
        problem = self._loops.problem()
        self._stuck_checks = self._stuck_checks + 1 if problem else 0
        if problem and self._stuck_checks * CHECK_SECONDS >= self._seconds:
            log.critical("the process ends, to be restarted: %s", problem)
            self._end(EXIT_CODE)

    def _check_all(self) -> None:
        sleep = original("time").sleep
        while not self._stopped:
            sleep(CHECK_SECONDS)
            if not self._stopped:
                self.check()
