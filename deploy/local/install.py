"""Finds the servers' programs, and installs missing ones with apt if this process runs as root."""

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy.local.process import StartError, tail

PLACES = ("/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/bin", "/usr/lib/erlang/bin")
POLICY = Path("/usr/sbin/policy-rc.d")
APT = Path("/var/lib/apt")
NO_CLUSTER = Path("/etc/postgresql-common/createcluster.d/order-suite.conf")


def find(*names: str) -> Path | None:
    """Return the first of these programs on PATH or in the usual folders."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *PLACES])
    found = (shutil.which(name, path=path) for name in names)
    return next((Path(program) for program in found if program), None)


def rabbitmq() -> Path | None:
    """Return RabbitMQ's own start script: the one with rabbitmq-env in its folder. Debian's wrapper on PATH does not
    work, because it requires the user rabbitmq."""
    on_path = find("rabbitmq-server")
    candidates = [
        Path("/usr/lib/rabbitmq/bin/rabbitmq-server"),
        *sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin/rabbitmq-server"), reverse=True),
        *([on_path, on_path.resolve()] if on_path else []),
    ]
    erlang = find("erl") and find("epmd")
    return next((c for c in candidates if erlang and c.with_name("rabbitmq-env").exists() and c.exists()), None)


def postgres(version: str | None = None) -> Path | None:
    """Return the folder with PostgreSQL's programs: of `version` if it is installed, otherwise of the newest one."""
    on_path = find("postgres")
    folders = [p.parent for p in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    folders.sort(key=lambda folder: (folder.parent.name == version, _number(folder.parent.name)), reverse=True)
    folders += [on_path.parent] if on_path else []
    return next((f for f in folders if (f / "initdb").exists()), None)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0


def redis() -> Path | None:
    """Return the program of Redis, or of Valkey, which is compatible and replaces it in some distributions."""
    return find("redis-server", "valkey-server")


def nginx() -> Path | None:
    """Return the program of nginx; only a test uses it, as the proxy before a gateway."""
    return find("nginx")


def chromium() -> Path | None:
    """Return the program of Chromium; only the tests of the console use it."""
    return find("chromium", "chromium-browser", "google-chrome-stable")


def faketime() -> Path | None:
    """Return the library that changes the clock of processes; only `make chaos` uses it."""
    places = (*Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), Path("/usr/local/lib/faketime/libfaketime.so.1"))
    return next((library for library in places if library.exists()), None)


@dataclass(frozen=True)
class Package:
    """A Debian package, a function that finds its program, and the units that it starts at boot."""

    name: str
    present: Callable[[], Path | None]
    units: tuple[str, ...]


PACKAGES = (
    Package("rabbitmq-server", rabbitmq, ("rabbitmq-server.service", "epmd.socket")),
    Package("postgresql", postgres, ("postgresql.service",)),
    Package("redis-server", redis, ("redis-server.service",)),
    Package("libfaketime", faketime, ()),
    Package("nginx", nginx, ("nginx.service",)),
    Package("chromium", chromium, ()),
)


def ensure(wanted: set[str], *, log: Path, say: Callable[[str], None]) -> None:
    """Install the missing ones of these packages, if this process is root and apt exists.

    Otherwise raise StartError with the command that installs them.
    """
    missing = _missing(wanted)
    names = [p.name for p in missing]
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise StartError(
            f"missing on this machine: {', '.join(names)}. Install them, for example with\n"
            f"    sudo apt-get install --no-install-recommends {' '.join(names)}\n"
            "(you can stop the servers that apt starts; the suite uses private ones), or run\n"
            "    docker compose up\n"
            "or set AMQP_URI, REDIS_URL and the *_DATABASE_URLs to the addresses of running servers."
        )
    log.parent.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time():
        missing = _missing(wanted)  # another process may have installed them meanwhile
        if missing:
            _install(missing, log, say)


def _missing(wanted: set[str]) -> list[Package]:
    return [p for p in PACKAGES if p.name in wanted and not p.present()]


def _install(packages: list[Package], log: Path, say: Callable[[str], None]) -> None:
    names = [p.name for p in packages]
    say(f"installing {', '.join(names)} with apt (once; the log is {log})")
    with _no_daemons():
        _apt(["update", "-qq"], log)
        _apt(["install", "-y", "-qq", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=600", *names], log)
    _not_at_boot([unit for package in packages for unit in package.units], log)
    still = [p.name for p in packages if not p.present()]
    if still:
        raise StartError(
            f"apt installed {', '.join(still)}, but the programs are not in the expected folders; see {log}"
        )


def _apt(arguments: list[str], log: Path) -> None:
    with log.open("ab") as output:
        done = subprocess.run(
            ["apt-get", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            check=False,
        )
    if done.returncode:
        raise StartError(f"apt-get {arguments[0]} failed (the whole log is {log}):\n{tail(log, 12)}")


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Within the block, no other process of this project installs anything on this machine.

    Test runs start several suites at the same time, and the first of them installs what all of them need.
    """
    folder = os.open(APT, os.O_RDONLY)  # the lock of a folder leaves no file behind
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


@contextlib.contextmanager
def _no_daemons() -> Iterator[None]:
    """Within the block, packages start no servers and create no PostgreSQL cluster on port 5432."""
    ours: list[Path] = []
    try:
        if not POLICY.exists():
            _write(POLICY, "#!/bin/sh\nexit 101\n", 0o755)
            ours.append(POLICY)
        if not NO_CLUSTER.exists():
            _write(NO_CLUSTER, "create_main_cluster = false\n", 0o644)
            ours.append(NO_CLUSTER)
        yield
    finally:
        for path in ours:
            path.unlink(missing_ok=True)


def _write(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def _not_at_boot(units: list[str], log: Path) -> None:
    """Disable the installed servers at boot too. Best effort: errors are ignored."""
    if shutil.which("systemctl"):
        with log.open("ab") as output:
            subprocess.run(["systemctl", "disable", *units], stdout=output, stderr=output, check=False)
