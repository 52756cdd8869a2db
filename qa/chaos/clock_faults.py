"""Clocks that jump forwards by an hour or a day, and back again, for the services and for PostgreSQL (libfaketime)."""

import os
import shutil
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.local import install

ROOT = Path(__file__).resolve().parents[2]
HOUR, DAY = 3600, 24 * 3600
SEEN_WITHIN_SECONDS = 2.0  # libfaketime looks at its file again in the second after the next


class Clock:
    """The wall clock of every process that was started under `environment()`. Other clocks than that never jump.

    RabbitMQ and Redis are left out: their timers are those of time that passes, as are Python's.
    """

    def __init__(self):
        """Installs libfaketime where that is possible; StartError where it is not."""
        install.ensure({"libfaketime"}, log=ROOT / "var/log/apt.log", say=print)
        self._library = install.faketime()
        self._folder = Path(tempfile.mkdtemp(prefix="order-suite-clock-"))
        self._folder.chmod(0o755)  # PostgreSQL may run as another user
        self._file = self._folder / "offset"
        self._lock = threading.Lock()
        self.jump(0)

    def environment(self):
        """What a process must be started under to live by this clock."""
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DISABLE_SHM": "1",  # else each process leaves a file in /dev/shm when it is killed
            # mends what the library breaks in Python, at its start
            "PYTHONPATH": os.pathsep.join([str(ROOT / "qa/chaos/under_faketime"), str(ROOT)]),
        }

    def jump(self, seconds):
        """Set the clock `seconds` ahead of the true one (or behind, if negative), for all processes soon."""
        fresh = self._file.with_name("offset.new")
        fresh.write_text(f"{seconds:+.0f}\n")
        fresh.chmod(0o644)
        fresh.replace(self._file)

    def reset(self):
        """Back to the true time."""
        self.jump(0)

    @contextmanager
    def ahead(self, seconds):
        """Another time within the block, the true one after it. One block at a time."""
        with self._lock:
            try:
                self.jump(seconds)
                yield
            finally:
                self.reset()
                time.sleep(SEEN_WITHIN_SECONDS)  # it is mended when everybody has seen it

    def stop(self):
        """Forget the file; call it when no process lives by this clock any more."""
        shutil.rmtree(self._folder, ignore_errors=True)


@dataclass(frozen=True)
class ClockJump:
    """The clock of all machines jumps by `offset` seconds, stays there for some seconds, and is set right again."""

    name: str
    offset: int

    def strike(self, arena, chance):
        held = chance.uniform(SEEN_WITHIN_SECONDS, 12.0)
        with arena.clock.ahead(self.offset):
            time.sleep(held)
        return f"{self.name}: {self.offset:+d} s for {held:.1f} s"


FAULTS = [
    ClockJump("the clock jumps an hour ahead and back", HOUR),
    ClockJump("the clock jumps a day ahead and back", DAY),
    ClockJump("the clock jumps an hour back and ahead", -HOUR),
]
