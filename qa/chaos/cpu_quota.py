"""Limits the processor time of processes: with a cgroup (v1 or v2), or by stopping them ten times a second.

    with limited(find_pids, share=0.25, cores=0.5) as quota:
        ...
        quota.note()      # which way was used, and how often it took effect

A cgroup needs the right to create one, usually root, and a kernel that enforces it: `way()` tries it out once. SIGSTOP
and SIGCONT work everywhere; a process may then exceed its share of a single tenth of a second by a few milliseconds.
"""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from functools import cache
from pathlib import Path

from deploy.local.process import signal_process, wait_until

PERIOD_MICROSECONDS = 100_000
PERIOD_SECONDS = PERIOD_MICROSECONDS / 1e6
REFRESH_SECONDS = 0.5  # how often restarted processes are added
# So little that a process exceeds it on the busiest machine.
TRIAL_SECONDS, TRIAL_CORES, MOST_OF_TRIAL = 0.8, 0.05, 0.5
PREFIX = "order-suite-chaos-"
CGROUPS = Path("/sys/fs/cgroup")

_numbers = itertools.count(1)


class Cgroup:
    """One group with a quota. Processes return to their own groups at the end."""

    def __init__(self, parent: Path, *, version: int) -> None:
        self._parent, self._version = parent, version
        self._folder = parent / f"{PREFIX}{os.getpid()}-{next(_numbers)}"

    def create(self, cores: float) -> None:
        """Raises OSError where this user may not."""
        quota = int(cores * PERIOD_MICROSECONDS)
        self._folder.mkdir()
        try:
            if self._version == 1:
                (self._folder / "cpu.cfs_period_us").write_text(str(PERIOD_MICROSECONDS))
                (self._folder / "cpu.cfs_quota_us").write_text(str(quota))
            else:
                (self._folder / "cpu.max").write_text(f"{quota} {PERIOD_MICROSECONDS}")
        except OSError:
            self._folder.rmdir()
            raise

    def add(self, pids) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                (self._folder / "cgroup.procs").write_text(str(pid))

    def throttled(self) -> int:
        """The number of periods in which the quota was used up."""
        stat = dict(line.split() for line in (self._folder / "cpu.stat").read_text().splitlines())
        return int(stat.get("nr_throttled", 0))

    def remove(self) -> None:
        """Return all processes to the parent group, and remove this one."""
        if not wait_until(self._is_removed, seconds=5):
            raise RuntimeError(f"{self._folder} could not be removed: its processes keep their quota")

    def _is_removed(self) -> bool:
        for pid in (self._folder / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                (self._parent / "cgroup.procs").write_text(pid)
        try:
            self._folder.rmdir()
        except OSError:  # a process has not moved yet
            return False
        return True


class CgroupQuota:
    """The quota of a cgroup."""

    def __init__(self, find_pids, group: Cgroup, cores: float, version: int) -> None:
        self._find_pids, self._group, self._cores, self._version = find_pids, group, cores, version

    @contextlib.contextmanager
    def applied(self):
        self._group.create(self._cores)
        over = threading.Event()
        refresh = threading.Thread(target=self._refresh, args=(over,), daemon=True)
        try:
            self._group.add(self._find_pids())
            refresh.start()
            yield self
        finally:
            over.set()
            if refresh.ident is not None:
                refresh.join()
            self._group.remove()

    def _refresh(self, over):
        while not over.wait(REFRESH_SECONDS):
            self._group.add(self._find_pids())

    def note(self) -> str:
        return f"throttled in {self._group.throttled()} periods (cgroup v{self._version})"


class DutyCycle:
    """SIGSTOP and SIGCONT ten times a second, as cpulimit does."""

    def __init__(self, find_pids, share: float) -> None:
        self._find_pids, self._share, self._cycles = find_pids, share, 0

    @contextlib.contextmanager
    def applied(self):
        over = threading.Event()
        worker = threading.Thread(target=self._work, args=(over,), daemon=True)
        worker.start()
        try:
            yield self
        finally:
            over.set()
            worker.join()

    def _work(self, over):
        while not over.is_set():
            stopped = [pid for pid in self._find_pids() if signal_process(pid, signal.SIGSTOP)]
            try:
                over.wait(PERIOD_SECONDS * (1 - self._share))
            finally:
                for pid in set(stopped) & set(self._find_pids()):  # the others have ended
                    signal_process(pid, signal.SIGCONT)
            self._cycles += 1
            over.wait(PERIOD_SECONDS * self._share)

    def note(self) -> str:
        return f"stopped {self._cycles} times (SIGSTOP)"


def limited(find_pids, *, share: float, cores: float):
    """The processes together get `cores` processors within the block; without cgroups each gets a `share` of one.

    `find_pids()` returns the pids of all of them that run. Yields an object with a `note`.
    """
    parent, version = way()
    if parent is None:
        return DutyCycle(find_pids, share).applied()
    return CgroupQuota(find_pids, Cgroup(parent, version=version), cores, version).applied()


@cache
def way() -> tuple[Path | None, int]:
    """Return the group in which groups with a quota can be made and its version, or (None, 0)."""
    for parent, version in _candidates():
        _remove_leftovers(parent)
        try:
            if _is_enforced(Cgroup(parent, version=version)):
                return parent, version
        except (OSError, RuntimeError):
            continue
    return None, 0


def describe_way() -> str:
    """The way in words."""
    parent, version = way()
    return (
        f"cgroup v{version}" if parent else "SIGSTOP and SIGCONT ten times a second: no cgroup with a quota is possible"
    )


def _candidates():
    """Yield (folder of this process's group, version) for each hierarchy that has quotas."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _number, controllers, path = line.split(":", 2)
        if "cpu" in controllers.split(","):
            yield CGROUPS / controllers / path.lstrip("/"), 1
            yield CGROUPS / "cpu" / path.lstrip("/"), 1
        elif not controllers:
            yield CGROUPS / path.lstrip("/"), 2
            yield CGROUPS / "unified" / path.lstrip("/"), 2


def _remove_leftovers(parent):
    """Remove the groups of runs that were killed; their processes have ended with them."""
    for left in parent.glob(f"{PREFIX}*"):
        if not Path("/proc", left.name.removeprefix(PREFIX).partition("-")[0]).exists():
            with contextlib.suppress(OSError):
                left.rmdir()


def _is_enforced(group: Cgroup) -> bool:
    """Whether a process that would use a whole processor gets much less in this group, and the kernel says so."""
    group.create(TRIAL_CORES)
    busy = subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"])
    try:
        group.add([busy.pid])
        before, began = _cpu_seconds(busy.pid), time.monotonic()
        time.sleep(TRIAL_SECONDS)
        used = (_cpu_seconds(busy.pid) - before) / (time.monotonic() - began)
        return used < MOST_OF_TRIAL and group.throttled() > 0
    finally:
        busy.kill()
        busy.wait()
        group.remove()


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
