"""A running suite for fault injection, with its own servers, in its own folder.

    with sandbox(Path("var/chaos"), say=print) as running: ...

inventory, payments and orders have two processes each, so that one can take over what a stopped process holds.
"""

import contextlib
import random
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contracts.services import PROCESSES, SERVICES
from deploy import migrate, seed
from deploy.local.process import StartError, wait_until
from deploy.local.servers import Servers, remove_data
from deploy.local.suite import Suite
from extensions.runtime.addresses import database_variable
from qa.chaos import disk_faults, duplicate_event_faults
from qa.chaos.clock_faults import Clock
from qa.chaos.crash_points import CRASHABLE, FOLDER
from qa.chaos.proxy import Proxies
from qa.chaos.receivers import Receivers
from qa.chaos.superuser import superuser
from qa.chaos.user import Account, User
from qa.support.client import ADMIN, CUSTOMER, Client
from qa.support.machine_speed import deadline_factor, deadlines
from qa.support.own_suite import set_up

TWICE = ("inventory", "payments", "orders")
PASSWORD = "Demo-pass-2026!"
# Ten processes start at once, also on a machine that has a tenth of a processor for each.
START_SECONDS, RESTART_SECONDS, HELD_SECONDS = 400.0, 120.0, 1800.0
ORDER_DEADLINE_SECONDS = 30


@dataclass(frozen=True)
class Instance:
    """One process of the suite: `orders`, or `orders (2)`."""

    suite: Suite
    service: str
    name: str

    @property
    def pid(self) -> int | None:
        return self.suite.pid(self.service)

    def signal(self, number: signal.Signals) -> int | None:
        """Send a signal; returns the pid, or None while the process is down."""
        pid = self.pid
        if pid is not None:
            self.suite.kill(self.service, number)
        return pid

    def await_restart(self, dead_pid: int, seconds: float = RESTART_SECONDS) -> None:
        """Wait until the supervisor has restarted it."""
        if not wait_until(lambda: self.pid not in {None, dead_pid}, seconds=seconds):
            raise RuntimeError(f"{self.name} was not restarted within {seconds:.0f} s")


@dataclass
class Sandbox:
    """The suite, its servers, proxies and clock."""

    folder: Path
    servers: Servers
    suite: Suite
    second: Suite
    environment: dict[str, str]  # of the services
    direct: dict[str, str]  # addresses of the servers themselves, not of the proxies
    url: str
    admin: User
    customer: User
    proxies: Proxies
    clock: Clock | None  # None without libfaketime
    receivers: Receivers  # of the webhooks and mails
    load: Any = None  # of the run
    audience: Any = None  # the receivers of news about the orders; None: what they received is not checked
    watch: Any = None  # judges the probes while slow faults are active
    slow_seconds: tuple[float, float] = (4.0, 9.0)  # how long a slow fault is active
    preferred: tuple[str, ...] = ()  # the targets of slow faults that can have one of them
    _turns: dict[str, list[Any]] = field(default_factory=dict)
    _locks: dict[str, threading.Lock] = field(default_factory=dict)
    _locks_lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def instances(self) -> list[Instance]:
        """Every process of the suite."""
        first = [Instance(self.suite, service, service) for service in PROCESSES]
        return first + [Instance(self.second, service, f"{service} (2)") for service in TWICE]

    @property
    def database_urls(self) -> dict[str, str]:
        """Each service's database, without the proxies."""
        return {service: self.direct[database_variable(service)] for service in SERVICES}

    @contextlib.contextmanager
    def exclusively(self, *targets: str, seconds: float = HELD_SECONDS) -> Iterator[None]:
        """Hold the locks of these servers or services within the block, so that only one fault at a time stops each."""
        with contextlib.ExitStack() as stack:
            for target in sorted(targets):
                with self._locks_lock:
                    lock = self._locks.setdefault(target, threading.Lock())
                if not lock.acquire(timeout=seconds):
                    raise RuntimeError(f"{target} was held by another fault for {seconds:.0f} s")
                stack.callback(lock.release)
            yield

    def superuser(self, database: str = "postgres", seconds: float = 60.0):
        """A connection to PostgreSQL as superuser, without the proxies, for a block of at most `seconds`."""
        return superuser(self.servers.postgres, database, seconds)

    def watched(self, effect: Any, kind: str):
        """The block in which a slow fault is active; without a watch, as in tests, nothing is judged."""
        return self.watch.during(effect, kind) if self.watch else contextlib.nullcontext()

    def next_of(self, kind: str, options: Sequence[Any], chance: random.Random) -> Any:
        """Return a preferred option, or else each of them once in a random order, then all of them again."""
        if preferred := [one for one in self.preferred if one in options]:
            return preferred[0]
        with self._locks_lock:
            turns = self._turns.setdefault(kind, [])
            if not turns:
                turns += chance.sample(list(options), len(options))
            return turns.pop()

    def wait_ready(self, seconds: float = RESTART_SECONDS) -> None:
        """Wait until every process runs and every service is ready."""
        deadline = time.monotonic() + seconds
        if not wait_until(lambda: all(one.pid for one in self.instances), seconds=seconds):
            down = [one.name for one in self.instances if not one.pid]
            raise TimeoutError(f"not running after {seconds:.0f} s: {', '.join(down)}")
        self.suite.wait_ready(max(1.0, deadline - time.monotonic()))


@contextlib.contextmanager
def sandbox(folder: Path, *, small_disk: bool = False, say=lambda text: print(text, flush=True)) -> Iterator[Sandbox]:
    """Start the suite with new data and the demo seed; stop everything at the end of the block.

    With `small_disk`, PostgreSQL has its own file system, which a fault can fill.
    """
    servers = Servers(folder, environ={})
    _clear(folder, servers)
    with contextlib.ExitStack() as stack:
        clock, proxies = _clock(), Proxies()
        if clock is not None:
            stack.callback(clock.stop)
        if small_disk:
            stack.enter_context(disk_faults.small_disk(servers))
        stack.callback(servers.stop)
        direct = servers.start()
        if clock is not None:  # PostgreSQL compares deadlines, so it needs the services' clock
            servers.postgres.environment = clock.environment
            servers.postgres.restart()
        limits = deadlines()
        Client.response_seconds = 2 * float(limits["HTTP_DEADLINE_SECONDS"])
        limits["ORDER_DEADLINE_SECONDS"] = str(ORDER_DEADLINE_SECONDS * deadline_factor(limits))
        direct = set_up(folder, direct | limits)
        migrate.migrate(say=lambda _line: None)
        stack.callback(proxies.stop)
        environment = proxies.start(direct) | {FOLDER: str(folder)}
        if clock is not None:
            environment |= clock.environment()
        receivers = Receivers()
        stack.callback(receivers.stop)
        environment |= receivers.start(clock.environment() if clock is not None else {})
        crashable = {"command": CRASHABLE, "more_variables": [FOLDER]}
        suite = Suite(environment, log_dir=folder / "log", say=_logger(folder, "suite"), **crashable)
        second = Suite(
            environment, log_dir=folder / "second/log", services=TWICE, say=_logger(folder, "second"), **crashable
        )
        for one in (suite, second):
            stack.callback(one.stop)
            one.start()
        suite.wait_ready(START_SECONDS)
        second.wait_ready(START_SECONDS)
        seed.run(say=lambda _line: None)
        url = f"http://{direct['GATEWAY_ADDRESS']}"
        say(f"the suite runs at {url}; logs: {folder / 'log'} and {folder / 'second/log'}")
        running = Sandbox(
            folder,
            servers,
            suite,
            second,
            environment,
            direct,
            url,
            User(url, Account(ADMIN, PASSWORD)),
            User(url, Account(CUSTOMER, PASSWORD)),
            proxies,
            clock,
            receivers,
        )
        duplicate_event_faults.start_recording(running)
        yield running


def _clear(folder: Path, servers: Servers) -> None:
    """Remove the data of the previous run, except its result."""
    folder.mkdir(parents=True, exist_ok=True)
    disk_faults._unmount(servers.data / "postgres")  # a killed run leaves its file system mounted
    remove_data(folder)
    for name in ("log", "second", "armed", "hit", "provider"):
        shutil.rmtree(folder / name, ignore_errors=True)


def _clock() -> Clock | None:
    """The services' clock, or None. Without it there are no clock faults, and the report lists them as not staged."""
    try:
        return Clock()
    except StartError:
        return None


def _logger(folder: Path, name: str):
    """Return a function that writes a supervisor's messages to a log beside those of the services."""
    log = folder / "log" / f"supervisor-{name}.log"

    def say(text: str) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as file:
            file.write(f"{time.strftime('%H:%M:%S')} {text}\n")

    return say
