"""Where the servers' programs are, and getting them from apt when they are missing and we may."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy.local.process import StartError, tail

PLACES = ("/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/bin", "/usr/lib/erlang/bin")
POLICY = Path("/usr/sbin/policy-rc.d")
NO_CLUSTER = Path("/etc/postgresql-common/createcluster.d/order-suite.conf")


def find(*names: str) -> Path | None:
    """The first of these programs on PATH or in the usual places beside it."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *PLACES])
    found = (shutil.which(name, path=path) for name in names)
    return next((Path(program) for program in found if program), None)


def rabbitmq() -> Path | None:
    """RabbitMQ's own start script. Debian's wrapper on PATH, which insists on the user rabbitmq, is not it: only the
    real one has rabbitmq-env beside it."""
    on_path = find("rabbitmq-server")
    candidates = [
        Path("/usr/lib/rabbitmq/bin/rabbitmq-server"),
        *sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin/rabbitmq-server"), reverse=True),
        *([on_path, on_path.resolve()] if on_path else []),
    ]
    erlang = find("erl") and find("epmd")
    return next((c for c in candidates if erlang and c.with_name("rabbitmq-env").exists() and c.exists()), None)


def postgres(version: str | None = None) -> Path | None:
    """The folder with PostgreSQL's programs; of several versions `version` if it is there, else the newest."""
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
    """Redis, or Valkey, which some distributions have instead and which is the same to us."""
    return find("redis-server", "valkey-server")


def faketime() -> Path | None:
    """The library that gives processes another clock: for `make chaos` only."""
    places = (*Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), Path("/usr/local/lib/faketime/libfaketime.so.1"))
    return next((library for library in places if library.exists()), None)


@dataclass(frozen=True)
class Package:
    """A Debian package, how to see that its programs are there, and the units it would start at boot."""

    name: str
    present: Callable[[], Path | None]
    units: tuple[str, ...]


PACKAGES = (
    Package("rabbitmq-server", rabbitmq, ("rabbitmq-server.service", "epmd.socket")),
    Package("postgresql", postgres, ("postgresql.service",)),
    Package("redis-server", redis, ("redis-server.service",)),
    Package("libfaketime", faketime, ()),
)


def ensure(wanted: set[str], *, log: Path, say: Callable[[str], None]) -> None:
    """See that these packages' programs are there; install them when we are root and there is apt.

    StartError with the line to type when they are missing and we may not.
    """
    missing = [p for p in PACKAGES if p.name in wanted and not p.present()]
    if not missing:
        return
    names = [p.name for p in missing]
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise StartError(
            f"missing on this machine: {', '.join(names)}. Install them, for example with\n"
            f"    sudo apt-get install --no-install-recommends {' '.join(names)}\n"
            "(what apt then starts of its own can be stopped; the suite starts private ones), or run\n"
            "    docker compose up\n"
            "or give the addresses of running servers in AMQP_URI, REDIS_URL and the *_DATABASE_URLs."
        )
    say(f"installing {', '.join(names)} with apt (once; the log is {log})")
    log.parent.mkdir(parents=True, exist_ok=True)
    with _no_daemons():
        _apt(["update", "-qq"], log)
        _apt(["install", "-y", "-qq", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120", *names], log)
    _not_at_boot([unit for package in missing for unit in package.units], log)
    still = [p.name for p in missing if not p.present()]
    if still:
        raise StartError(
            f"apt installed {', '.join(still)}, but the programs are not where they are expected; see {log}"
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
def _no_daemons() -> Iterator[None]:
    """Meanwhile packages start nothing and make no PostgreSQL cluster on 5432: the machine is the user's."""
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
    """What was installed for the suite's sake is not started at the next boot either. Best effort, hence unchecked."""
    if shutil.which("systemctl"):
        with log.open("ab") as output:
            subprocess.run(["systemctl", "disable", *units], stdout=output, stderr=output, check=False)
