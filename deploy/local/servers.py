"""Private RabbitMQ, PostgreSQL and Redis for one clone: with their own data and ports, only on the loopback interface.

    servers = Servers(Path("var/test"))
    env = servers.start()          # {"AMQP_URI": ..., "ORDERS_AMQP_URI": ..., "USERS_DATABASE_URL": ...}
    servers.rabbitmq.restart()     # also .stop() .start() .kill(); the same for .postgres and .redis
    servers.stop()

A server whose address is in the environment (AMQP_URI, REDIS_URL, all of the *_DATABASE_URLs) is not started, and its
attribute is None.
"""

import contextlib
import fcntl
import os
import re
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO

from contracts.services import SERVICES
from deploy.local import install, passwords, ports
from deploy.local.postgres import Postgres
from deploy.local.process import StartError
from deploy.local.rabbitmq import RabbitMQ
from deploy.local.redis import Redis
from deploy.local.server import Server
from extensions.runtime.addresses import database_variable, owner_variable

# var/env sets this variable. If it is set, the addresses in the environment are those of our own servers, so they are
# ignored.
OURS = "ORDER_SUITE_ENV"


def given_addresses(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the addresses that the user has set. Raises StartError if only some of the database URLs are set."""
    if OURS in environ:
        return {}
    databases = [database_variable(service) for service in SERVICES]
    brokers = ["AMQP_URI", *(name for name in environ if name.endswith("_AMQP_URI"))] if environ.get("AMQP_URI") else []
    caches = (
        ["REDIS_URL", *(name for name in environ if name.endswith("_REDIS_URL"))] if environ.get("REDIS_URL") else []
    )
    owners = [owner_variable(service) for service in SERVICES]
    given = {name: environ[name] for name in (*brokers, *caches, *databases, *owners) if environ.get(name)}
    missing = [name for name in databases if name not in given]
    if missing and len(missing) < len(databases):
        raise StartError(f"some databases' addresses are set but not {', '.join(missing)}: set all of them, or none")
    return given


def data_folder(root: Path) -> Path:
    """Return the folder of the servers' data: in `root`, except for the root user or a path with unusual characters.

    If this process is root, the servers run as other users, who may have no access to the clone's folder. RabbitMQ's
    scripts do not work with blanks in paths.
    """
    root = root.resolve()
    if os.geteuid() != 0 and re.fullmatch(r"[\w./+-]+", str(root), re.ASCII):
        return root / "data"
    return Path("/var/tmp") / f"order-suite-{os.geteuid()}-{zlib.crc32(str(root).encode()):08x}"  # noqa: S108 - the owner is checked


class Servers:
    """The three servers of the folder `root`; only one process at a time may use them."""

    def __init__(
        self,
        root: Path,
        *,
        environ: Mapping[str, str] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.root = root.resolve()
        self.data = data_folder(root)
        self.logs = self.root / "log"
        self.given = given_addresses(os.environ if environ is None else environ)
        self.rabbitmq: RabbitMQ | None = None
        self.postgres: Postgres | None = None
        self.redis: Redis | None = None
        self._say = say or (lambda _text: None)
        self._lock: IO[str] | None = None

    def start(self) -> dict[str, str]:
        """Start all servers that are not given, concurrently; returns the addresses, by the variables of config.yml."""
        self.launch()
        self.wait_ready()
        return self.addresses()

    def lock(self) -> None:
        """Lock `root` for this process until `stop`. The kernel releases the lock when the process ends.

        Raises StartError with the owner's pid if another process holds the lock.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        lock = (self.root / "lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            lock.close()
            raise StartError(f"the servers in {self.root} are in use by the process {owner}") from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock

    def launch(self) -> dict[str, str]:
        """The first half of `start`: afterwards PostgreSQL is ready, but RabbitMQ, the slowest one, may not be."""
        if self._lock is None:
            self.lock()
        with self._stopping_on_failure():
            install.ensure(self._packages(), log=self.logs / "apt.log", say=self._say)
            self._make_data_folder()
            self._launch()
            self._wait_for(self.postgres)
        return self.addresses()

    def wait_ready(self) -> None:
        """The second half of `start`."""
        with self._stopping_on_failure():
            for server in (self.redis, self.rabbitmq):
                self._wait_for(server)

    def _wait_for(self, server: Server | None) -> None:
        if server is not None:
            began = time.monotonic()
            server.wait_ready()
            self._say(f"{server.name} is ready on port {server.port} (waited {time.monotonic() - began:.1f} s)")

    @contextlib.contextmanager
    def _stopping_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.stop()
            raise

    def addresses(self) -> dict[str, str]:
        """The addresses of the servers, by the variables of config.yml."""
        found = dict(self.given)
        if self.rabbitmq:
            found |= self.rabbitmq.uris()
        if self.redis:
            found |= self.redis.urls()
        if self.postgres:
            found |= self.postgres.urls()
        return found

    def revive(self) -> None:
        """Restart servers that have ended, without waiting for them: the services reconnect when they are ready."""
        for server in self._all():
            if server.died:
                self._say(f"{server.name} has ended and is restarted; its log: {server.log}")
                server.launch()

    def stop(self) -> None:
        """Stop all started servers gracefully and concurrently."""
        for server in self._all():
            server.ask_to_stop()
        for server in self._all():
            server.stop()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> dict[str, str]:
        return self.start()

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()

    def _all(self) -> list[Server]:
        return [server for server in (self.rabbitmq, self.postgres, self.redis) if server is not None]

    def _packages(self) -> set[str]:
        needed = {
            "AMQP_URI": "rabbitmq-server",
            "REDIS_URL": "redis-server",
            "USERS_DATABASE_URL": "postgresql",
        }
        return {package for variable, package in needed.items() if variable not in self.given}

    def _launch(self) -> None:
        """Launch RabbitMQ first: it takes longest, and PostgreSQL can create its cluster in the meantime."""
        chosen = ports.choose(self.root)
        wanted = self._packages()
        secret = passwords.of(self.data, os.environ)
        if "rabbitmq-server" in wanted:
            self.rabbitmq = RabbitMQ(
                self.data / "rabbitmq",
                self.logs,
                chosen["amqp"],
                dist_port=chosen["amqp_dist"],
                epmd_port=chosen["epmd"],
                passwords=secret,
            )
        if "redis-server" in wanted:
            self.redis = Redis(self.data / "redis", self.logs, chosen["redis"], passwords=secret)
        if "postgresql" in wanted:
            self.postgres = Postgres(self.data / "postgres", self.logs, chosen["postgres"], passwords=secret)
        for server in (self.rabbitmq, self.redis, self.postgres):
            if server is not None:
                self._say(f"starting {server.name}")
                server.launch()

    def _make_data_folder(self) -> None:
        """Create the data folder. In /var/tmp another user may have created it first, so check its owner."""
        self.data.mkdir(parents=True, exist_ok=True)
        status = self.data.lstat()
        if self.data.is_symlink() or status.st_uid != os.geteuid():
            raise StartError(f"{self.data} belongs to another user; remove it, or move this clone to another folder")
        self.data.chmod(0o711)


def remove_data(root: Path) -> None:
    """Delete the data of the servers of the folder `root`. Call it only while they are stopped."""
    shutil.rmtree(data_folder(root), ignore_errors=True)
