"""A private PostgreSQL on the loopback interface: one cluster with a database and two roles for each service."""

import os
import secrets
import shutil
import signal
from pathlib import Path
from urllib.parse import quote

import psycopg2

from contracts.services import SERVICES
from deploy.databases import Database, make
from deploy.local import install
from deploy.local.process import StartError, pids, signal_process, spawn, started_at, tail, wait_until
from deploy.local.server import Server
from deploy.local.unprivileged import package_user
from extensions.runtime.addresses import database_variable, owner_variable

SUPERUSER = "postgres"

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    # no Unix socket: its path may have at most 107 characters, and a clone's path can be longer
    "unix_socket_directories": "",
    "max_connections": "300",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %u@%d ",
}


class Postgres(Server):
    name = "postgres"
    stop_signal = signal.SIGINT  # the fast shutdown, which disconnects clients; SIGTERM would wait for them
    grace = 30.0

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def programs(self) -> Path:
        """The folder of PostgreSQL's programs. Prefers the version that created the data, if it is installed."""
        marker = self.data / "PG_VERSION"
        folder = install.postgres(marker.read_text().strip() if marker.exists() else None)
        if folder is None:
            raise StartError("PostgreSQL's programs (postgres, initdb) are not on this machine")
        return folder

    def url(self, role: str, database: str = "") -> str:
        """The address of a database for a role. `database` defaults to the role's name."""
        password = quote(self.passwords.get(f"{role.upper()}_DATABASE_PASSWORD", role), safe="")
        return f"postgresql+psycopg2://{role}:{password}@127.0.0.1:{self.port}/{database or role}"

    def administrator_url(self) -> str:
        """The address of the superuser."""
        password = (self.home / "superuser-password").read_text()
        return f"postgresql+psycopg2://{SUPERUSER}:{password}@127.0.0.1:{self.port}/postgres"

    def databases(self) -> list[Database]:
        """The services' databases, each with the addresses of its service and its owner."""
        return [Database(one, self.url(one), self.url(f"{one}_owner", one)) for one in SERVICES]

    def urls(self) -> dict[str, str]:
        """The environment variables of config.yml with the addresses of the databases."""
        own = {database_variable(one.service): one.url for one in self.databases()}
        return own | {owner_variable(one.service): one.owner_url for one in self.databases()}

    def user(self) -> tuple[int, int] | None:
        """The uid and gid to run as. PostgreSQL refuses to run as root."""
        return package_user("postgres")

    def prepare(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        if not (self.data / "PG_VERSION").exists():
            self._initdb()
        self._clear_up_after_a_crash()

    def _initdb(self) -> None:
        """Create the cluster in a temporary folder, so that an interrupted attempt leaves no incomplete cluster."""
        fresh = self.home / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        password = self.home / "superuser-password"
        password.unlink(missing_ok=True)
        with os.fdopen(os.open(password, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(24))
        owner = self.user()
        if owner:
            os.chown(self.home, *owner)
            os.chown(fresh, *owner)
            os.chown(password, *owner)
        options = [
            f"--username={SUPERUSER}",
            f"--pwfile={password}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
        ]
        process = spawn(
            [str(self.programs / "initdb"), *options, "--locale=C.UTF-8", f"--pgdata={fresh}"],
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"},
            log=self.log,
            cwd=self.home,
            on_launcher_death=signal.SIGKILL,
            user=owner,
        )
        if not wait_until(lambda: process.poll() is not None, seconds=60) or process.returncode:
            process.kill()
            raise StartError(f"initdb failed. The end of {self.log}:\n{tail(self.log)}")
        fresh.rename(self.data)

    def _clear_up_after_a_crash(self) -> None:
        """Make a start possible after PostgreSQL's main process was killed.

        PostgreSQL does not start if its recorded pid now belongs to another process. It also does not start while a
        child of the killed process runs: a child that waits for a lock does not notice that its parent has ended.
        """
        record = self.data / "postmaster.pid"
        try:
            pid = int(record.read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return
        command = Path(f"/proc/{pid}/cmdline")
        if started_at(pid) and str(self.data).encode() in command.read_bytes():
            return
        orphans = [pid for pid in pids() if self._is_ours(pid)]
        for pid in orphans:
            signal_process(pid, signal.SIGKILL)  # uncommitted work is rolled back, as after any crash
        wait_until(lambda: not any(map(started_at, orphans)), seconds=10)
        record.unlink(missing_ok=True)

    def _is_ours(self, pid: int) -> bool:
        """Whether this is a PostgreSQL process with this data folder."""
        process = Path(f"/proc/{pid}")
        try:
            title = (process / "cmdline").read_bytes()
            return title.startswith(b"postgres: ") and (process / "cwd").samefile(self.data)
        except OSError:  # it has ended, or belongs to another user
            return False

    def command(self) -> list[str]:
        made_by, installed = self.data / "PG_VERSION", self.programs.parent.name
        if installed.isdigit() and made_by.read_text().strip() != installed:
            raise StartError(
                f"the data in {self.data} was created by PostgreSQL {made_by.read_text().strip()}, but version "
                f"{installed} is installed; `make clean` deletes the data"
            )
        settings = SETTINGS | {"port": str(self.port)}
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self.programs / "postgres"), "-D", str(self.data), *flags]

    def is_ready(self) -> bool:
        """Whether it accepts connections. Also creates missing databases and roles."""
        try:
            make(self.administrator_url(), self.databases())
        except psycopg2.OperationalError:
            return False
        return True
