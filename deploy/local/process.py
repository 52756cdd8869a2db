"""Starts and stops processes, and makes sure that they end when their launcher ends.

A child gets its own session, so that only the launcher handles Ctrl-C. It gets a signal when the launcher dies. Its pid
is written to a file, so that a later run can end the processes of an earlier run that was killed.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

PR_SET_PDEATHSIG = 1
OPEN_FILES = 65_536
POLL = 0.05  # seconds
KERNEL_TIMEOUT = 60  # seconds for the kernel to deliver a signal that cannot be refused
NOT_RUNNING = "TtZX"  # states of a process in /proc: stopped, stopped by a tracer, zombie, dead

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class StartError(Exception):
    """A process could not be started. The message names it and says what to do."""


def spawn(
    command: list[str],
    *,
    env: dict[str, str],
    log: Path,
    cwd: Path,
    on_launcher_death: signal.Signals,
    user: tuple[int, int] | None = None,
) -> "subprocess.Popen[bytes]":
    """Start `command` with its output appended to `log`, as `user` (uid, gid) if given.

    Linux sends `on_launcher_death` when the *thread* that called this function ends. Call it from a thread that does
    not end before the child.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    identity: dict[str, object] = {} if user is None else {"user": user[0], "group": user[1], "extra_groups": []}
    with log.open("ab") as output:
        return subprocess.Popen(  # type: ignore[call-overload]
            command,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_prepare(os.getpid(), on_launcher_death),  # noqa: PLW1509 - it takes no lock
            **identity,
        )


def _prepare(launcher: int, on_launcher_death: signal.Signals) -> Callable[[], None]:
    """Return the function that the child runs between fork and exec.

    It runs after the change of user, because a change of user resets PR_SET_PDEATHSIG.
    """

    def prepare() -> None:
        if _libc is not None:
            _libc.prctl(PR_SET_PDEATHSIG, int(on_launcher_death))
            if os.getppid() != launcher:  # the launcher died before the call of prctl
                os._exit(1)
        # a background job of a shell without job control inherits these two signals as ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)
        _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))

    return prepare


def wait_until(condition: Callable[[], bool], *, seconds: float, poll: float = POLL) -> bool:
    """Wait until `condition()` holds; False if it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(poll)
    return True


def signal_process(pid: int, number: int) -> bool:
    """Send a signal; False if the process does not exist any more."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def stop_process(process: "subprocess.Popen[bytes]", number: signal.Signals, *, grace: float) -> bool:
    """Send a signal to a child, and SIGKILL to its tree after `grace` seconds. False if it had to be killed."""
    if process.poll() is None:
        signal_process(process.pid, number)
    if wait_until(lambda: process.poll() is not None, seconds=grace):
        return True
    kill_tree(process.pid)
    process.wait(timeout=10)
    return False


def kill_tree(pid: int) -> None:
    """SIGKILL a process and all its descendants, including those that it starts during this call.

    Children are killed before their parents: when a parent exits, the kernel may send SIGCONT to its stopped children.
    """
    family = _stop_tree(pid)
    for member in reversed(family):
        signal_process(member, signal.SIGKILL)
    wait_until(lambda: not any(started_at(member) for member in family[1:]), seconds=KERNEL_TIMEOUT)


def _stop_tree(pid: int) -> list[int]:
    """SIGSTOP a process and its descendants, and return their pids, parents before children.

    SIGSTOP does not interrupt a fork that has begun: its child appears later. So this function stops all known members,
    then lists the tree again, until a list contains no new process.
    """
    family: list[int] = []
    new = [pid]
    while new:
        for member in new:
            signal_process(member, signal.SIGSTOP)
        for member in new:
            wait_until(partial(_has_stopped, member), seconds=KERNEL_TIMEOUT, poll=POLL / 10)
        family += new
        new = [member for member in descendants(pid) if member not in family]
    return family


def _has_stopped(pid: int) -> bool:
    """Whether no thread of a process runs: each is stopped, a zombie or gone."""
    threads = [_fields(task / "stat") for task in Path(f"/proc/{pid}/task").glob("[0-9]*")]
    return all(fields[0] in NOT_RUNNING for fields in threads if fields)


def pids() -> Iterator[int]:
    """The pids of all processes, from /proc."""
    return (int(entry.name) for entry in Path("/proc").glob("[0-9]*"))


def descendants(pid: int) -> Iterator[int]:
    """The pids below `pid`, from /proc: children, their children, and orphans that are left in a session of these."""
    related: dict[int, set[int]] = {}
    for each in pids():
        fields = _stat(each)
        if fields:
            _state, parent, _group, session = fields[:4]
            related[each] = {int(parent), int(session)}
    wanted = {pid}
    while new := {each for each, relatives in related.items() if relatives & wanted} - wanted:
        wanted |= new
        yield from new


def started_at(pid: int) -> str | None:
    """An identifier that differs from that of any other process with this pid; None if it has ended or is a zombie."""
    fields = _stat(pid)
    if not fields or fields[0] == "Z":
        return None
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{boot.read_text().strip() if boot.exists() else ''}/{fields[19]}"


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the state on; an empty list if there is no such process."""
    return _fields(Path(f"/proc/{pid}/stat"))


def _fields(stat: Path) -> list[str]:
    """The fields of a stat file in /proc from the state on; an empty list if it cannot be read.

    The name of the process, which comes before the state, may contain any character.
    """
    try:
        return stat.read_text().rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return []


class PidFile:
    """Stores the pid and start time of a process, because a pid alone may be reused by another process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, pid: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps({"pid": pid, "started_at": started_at(pid)}))

    def read(self) -> int | None:
        """The pid, if the recorded process still runs."""
        try:
            record = json.loads(self.path.read_text())
            pid = int(record["pid"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return pid if record.get("started_at") and started_at(pid) == record["started_at"] else None

    def remove(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()

    def end_leftover(self, number: signal.Signals, *, grace: float) -> bool:
        """End the recorded process of an earlier run. True if it was running."""
        pid = self.read()
        if pid is not None:
            signal_process(pid, number)
            if not wait_until(lambda: started_at(pid) is None, seconds=grace):
                kill_tree(pid)
                wait_until(lambda: started_at(pid) is None, seconds=10)
        self.remove()
        return pid is not None


def tail(log: Path, lines: int = 25) -> str:
    """The last lines of a log, for an error message."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return f"(no log at {log})"
