"""Processor time and resident memory of processes, from /proc."""

import os
import time
from pathlib import Path

from deploy.local.process import descendants

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
USER, SYSTEM, CHILDREN_USER, CHILDREN_SYSTEM = 11, 12, 13, 14  # after the name, which may contain blanks


def cpu_seconds(pid):
    """Processor time of a process and its descendants, including children that have ended."""
    return sum(map(_own_cpu, [pid, *descendants(pid)]))


def resident_mib(pid):
    """Resident memory of one process in MiB; 0 if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 2**20
    except (OSError, IndexError):
        return 0.0


def _own_cpu(pid):
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(fields[one]) for one in (USER, SYSTEM, CHILDREN_USER, CHILDREN_SYSTEM)) / TICKS


class Meter:
    """Measures the processor time of processes in a block: `with Meter({"rabbitmq": pid}) as meter: ...`."""

    def __init__(self, pids):
        self._pids = pids
        self.seconds = {}  # processor seconds by name, after the block
        self.elapsed = 0.0

    def __enter__(self):
        self._before = {name: cpu_seconds(pid) for name, pid in self._pids.items()}
        self._began = time.monotonic()
        return self

    def __exit__(self, *_error):
        self.elapsed = time.monotonic() - self._began
        self.seconds = {name: cpu_seconds(pid) - self._before[name] for name, pid in self._pids.items()}

    def per_order(self, orders, **more):
        """Milliseconds of processor time per order, by process; `more` are the seconds of further processes."""
        taken = self.seconds | more
        return {name: 1000 * seconds / orders for name, seconds in taken.items()} if orders else {}


def slope_per_hour(samples):
    """The slope of the regression line through (seconds, MiB) samples, in MiB per hour; 0 for too few samples."""
    if len(samples) < 2:
        return 0.0
    mean_x = sum(x for x, _ in samples) / len(samples)
    mean_y = sum(y for _, y in samples) / len(samples)
    spread = sum((x - mean_x) ** 2 for x, _ in samples)
    return 3600 * sum((x - mean_x) * (y - mean_y) for x, y in samples) / spread if spread else 0.0
