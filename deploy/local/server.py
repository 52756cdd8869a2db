"""The base of the three private servers: starting and stopping their process."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from deploy.local.process import PidFile, StartError, kill_tree, signal_process, spawn, stop_process, tail
from deploy.local.unprivileged import own


class Server:
    """One server process with its data in `home`, its log in `logs`, listening on `port` of 127.0.0.1."""

    name: str
    stop_signal = signal.SIGTERM
    grace = 20.0  # seconds from the stop signal to SIGKILL
    deadline = 60.0  # seconds until it must be ready
    tries = 1  # how often it is launched if it ends while it starts

    def __init__(self, home: Path, logs: Path, port: int, *, passwords: Mapping[str, str] | None = None) -> None:
        """`passwords` are those of its users, by variable; without one the password is the name, or there is none."""
        self.home = home
        self.passwords = dict(passwords or {})
        self.log = logs / f"{self.name}.log"
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None
        self.pid_file = PidFile(home.with_name(f"{self.name}.pid"))

    # defined by each server

    def prepare(self) -> None:
        """Create what must exist before the process starts. Called before every start."""

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """The environment variables of the process, besides PATH and a neutral locale."""
        return {}

    def user(self) -> tuple[int, int] | None:
        """The uid and gid to run as, or None for those of this process."""
        return None

    def is_ready(self) -> bool:
        """Whether it responds in its own protocol."""
        raise NotImplementedError

    def make_home(self, *of_its_own: str) -> None:
        """Create `home`, which only the server's user can read, and folders in it that belong to this user.

        `home` itself stays ours: root writes files there, and must not follow a link that another user has put there.
        """
        user = self.user()
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        if user is not None:
            os.chown(self.home, os.geteuid(), user[1])
            self.home.chmod(0o750)
        for name in of_its_own:
            folder = self.home / name
            folder.mkdir(exist_ok=True, mode=0o700)
            if user is not None and folder.stat().st_uid != user[0]:  # new, or of a version that ran it as root
                own(folder, user)

    # the process

    def start(self) -> None:
        """Launch the server and wait until it is ready. Raises StartError with the end of the log if it is not."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start the process without waiting for it. Ends a process that an earlier run left behind."""
        if self.pid is not None:
            return
        self.pid_file.end_leftover(self.stop_signal, grace=self.grace)
        self.prepare()
        # not the caller's environment: a RABBITMQ_* or PG* variable in it would change the server's configuration
        env = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", **self.environment()}
        self.process = spawn(
            self.command(),
            env=env,
            log=self.log,
            cwd=self.home,
            on_launcher_death=self.stop_signal,
            user=self.user(),
        )
        self.pid_file.write(self.process.pid)

    def wait_ready(self) -> None:
        end = time.monotonic() + self.deadline
        tries_left = self.tries
        while not self.is_ready():
            if self.process is None or self.process.poll() is not None:
                tries_left -= 1
                if tries_left and self.process is not None:
                    self.launch()
                    continue
                raise StartError(f"{self.name} ended while starting. The end of {self.log}:\n{tail(self.log)}")
            if time.monotonic() > end:
                raise StartError(
                    f"{self.name} was not ready after {self.deadline:.0f} s. The end of {self.log}:\n{tail(self.log)}"
                )
            time.sleep(0.05)

    @property
    def pid(self) -> int | None:
        """The pid of the running process, or None."""
        return self.process.pid if self.process and self.process.poll() is None else None

    @property
    def died(self) -> bool:
        """Whether it was started and has ended without being stopped."""
        return self.process is not None and self.process.poll() is not None

    def ask_to_stop(self) -> None:
        """Send the stop signal without waiting: several servers can then stop at the same time."""
        if self.pid is not None:
            signal_process(self.pid, self.stop_signal)

    def stop(self) -> None:
        """Stop gracefully; SIGKILL after `grace` seconds."""
        if self.process is not None:
            stop_process(self.process, self.stop_signal, grace=self.grace)
        self.process = None
        self.pid_file.remove()

    def kill(self) -> None:
        """SIGKILL, like a crash: the data stays, and `start` recovers it."""
        if self.process is not None:
            kill_tree(self.process.pid)
            self.process.wait(timeout=10)
        self.process = None
        self.pid_file.remove()

    def restart(self) -> None:
        """Stop gracefully and start again on the same port with the same data."""
        self.stop()
        self.start()
