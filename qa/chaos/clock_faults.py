"""Clock faults: the wall clock of the services and of PostgreSQL jumps and jumps back (libfaketime)."""

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
SEEN_WITHIN_SECONDS = 2.0  # libfaketime rereads its file at most two seconds later


class Clock:
    """The wall clock of every process that was started with `environment()`. The monotonic clock never jumps.

    RabbitMQ and Redis keep the real clock: their timers use the monotonic clock, as Python's do.
    """

    def __init__(self):
        """Install libfaketime if necessary. Raises StartError if that is not possible."""
        install.ensure({"libfaketime"}, log=ROOT / "var/log/apt.log", say=print)
        self._library = install.faketime()
        self._folder = Path(tempfile.mkdtemp(prefix="order-suite-clock-"))
        self._folder.chmod(0o755)  # PostgreSQL may run as another user
        self._file = self._folder / "offset"
        self._lock = threading.Lock()
        self.jump(0)

    def environment(self):
        """The environment variables of a process that uses this clock."""
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DISABLE_SHM": "1",  # otherwise a killed process leaves a file in /dev/shm
            # works around a bug of libfaketime that breaks time.sleep
            "PYTHONPATH": os.pathsep.join([str(ROOT / "qa/chaos/under_faketime"), str(ROOT)]),
        }

    def jump(self, seconds):
        """Set the clock `seconds` ahead of real time (or behind, if negative). Processes see it within two seconds."""
        fresh = self._file.with_name("offset.new")
        fresh.write_text(f"{seconds:+.0f}\n")
        fresh.chmod(0o644)
        fresh.replace(self._file)

    def reset(self):
        """Set the clock to real time."""
        self.jump(0)

    @contextmanager
    def ahead(self, seconds):
        """Shift the clock within the block, and reset it after it. Blocks run one at a time."""
        with self._lock:
            try:
                self.jump(seconds)
                yield
            finally:
                self.reset()
                time.sleep(SEEN_WITHIN_SECONDS)  # until all processes have seen it

    def stop(self):
        """Remove the file; call it when no process uses this clock any more."""
        shutil.rmtree(self._folder, ignore_errors=True)


@dataclass(frozen=True)
class ClockJump:
    """The clock of all processes jumps by `offset` seconds, stays there for some seconds, and jumps back."""

    name: str
    offset: int

    def inject(self, sandbox, chance):
        held = chance.uniform(SEEN_WITHIN_SECONDS, 12.0)
        with sandbox.clock.ahead(self.offset):
            time.sleep(held)
        return f"{self.name}: {self.offset:+d} s for {held:.1f} s"


FAULTS = [
    ClockJump("the clock jumps an hour ahead and back", HOUR),
    ClockJump("the clock jumps a day ahead and back", DAY),
    ClockJump("the clock jumps an hour back and ahead", -HOUR),
]
