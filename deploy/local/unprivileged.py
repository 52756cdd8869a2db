"""Users without rights for what root starts: packages' users for the servers, a user id for each service.

PostgreSQL, RabbitMQ and Redis run as the users that their packages create. For the services no user is created: each
has a number of the range that systemd gives to services without a user of their own, so that no service can read the
memory, environment or files of another.
"""

import os
import pwd
import shlex
import subprocess
import sys
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.local.install import find
from deploy.local.process import StartError

IDS = range(61_184, 65_520)  # systemd's DynamicUser
PRIVILEGED_PORTS = 1024
# Without the right libraries beside it, an interpreter may start with those of another one.
PROBE = """
import importlib.util, sys
for name in ("contracts/services.py", "config.yml"):
    open(name).close()
readable = all(map(importlib.util.find_spec, ("nameko", "psycopg2", "pydantic_core")))
sys.exit(not readable or [sys.version, sys.base_prefix] != sys.argv[1:])
"""
PROBE_SECONDS = 60


def package_user(*names: str) -> tuple[int, int] | None:
    """Return uid and gid of the first of these users, or of nobody. None if this process is not root.

    Raises StartError if there is none: a server that does not need root must not have it.
    """
    if os.geteuid() != 0:
        return None
    for name in (*names, "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise StartError(f"as root, this needs a user {' or '.join(names)}, which the server's package creates, or nobody")


def own(path: Path, user: tuple[int, int] | None) -> None:
    """Make `user` the owner of a file or folder, and of everything in it. Nothing if there is no such user."""
    if user is None:
        return
    os.chown(path, *user, follow_symlinks=False)
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            os.chown(os.path.join(folder, name), *user, follow_symlinks=False)  # noqa: PTH118 - thousands of files


@dataclass(frozen=True)
class ServiceUsers:
    """The user ids of the services, and the command that starts a process as one of them."""

    ids: dict[str, int]
    view: str = ""
    """Shell commands that show the process what it has to read, in a mount namespace of its own; see `choose`."""
    ports: frozenset[str] = frozenset()
    """The services that listen on a port below 1024, for which they keep this one capability."""

    def command(self, service: str, command: Sequence[str]) -> list[str]:
        """Return the command that runs `command` as the user of `service`. It replaces itself, so the pid stays."""
        number = str(self.ids[service])
        drop = [str(find("setpriv")), f"--reuid={number}", f"--regid={number}", "--clear-groups", "--no-new-privs"]
        if service in self.ports:
            drop += ["--inh-caps=+net_bind_service", "--ambient-caps=+net_bind_service"]
        drop += ["--pdeathsig=KILL", "--", *command]  # a change of user forgets the signal that process.py has set
        if not self.view:
            return drop
        script = f"set -e; {self.view}; exec {shlex.join(drop)}"
        return [str(find("unshare")), "--mount", "--propagation=private", "--", "/bin/sh", "-c", script]

    def give(self, path: Path, service: str) -> None:
        """Make `service` the owner of a file, which only it and root can then read if its mode is 0600."""
        os.chown(path, self.ids[service], self.ids[service])


def choose(services: Iterable[str], root: Path, data: Path, *, gateway_port: int = 0) -> ServiceUsers | None:
    """Return users for the services of the clone `root`; None if this process is not root.

    They must be able to read the clone and Python. If one of these is below a folder that is closed to others, such as
    /root, the processes get a view in which this folder contains nothing but what they need.

    Raises StartError if that is impossible, for example because a container may not mount anything.
    """
    if os.geteuid() != 0:
        return None
    names = list(services)
    if not find("setpriv"):
        raise StartError("the program setpriv (package util-linux) is missing")
    ports = frozenset({"gateway"} if 0 < gateway_port < PRIVILEGED_PORTS else ())
    users = ServiceUsers(_free_ids(names, root), _view(root, data), ports)
    if _can_read(users, names[0], root):
        return users
    needed = " and ".join(dict.fromkeys([str(root), sys.base_prefix]))
    raise StartError(f"other users cannot read {needed}")


def _free_ids(names: Sequence[str], root: Path) -> dict[str, int]:
    """Return ids that no user has. They depend on the path of the clone, so that two clones do not share them."""
    slots = len(IDS) // len(names)
    first = zlib.crc32(str(root).encode()) % slots
    for slot in (*range(first, slots), *range(first)):
        ids = IDS[slot * len(names) : (slot + 1) * len(names)]
        if not any(map(_is_taken, ids)):
            return dict(zip(names, ids, strict=True))
    raise StartError("this machine has no free user ids for the services")


def _is_taken(number: int) -> bool:
    try:
        pwd.getpwuid(number)
    except KeyError:
        return False
    return True


def _can_read(users: ServiceUsers, service: str, root: Path) -> bool:
    program = [sys.executable, "-W", "ignore", "-c", PROBE, sys.version, sys.base_prefix]
    command = users.command(service, program)
    try:
        done = subprocess.run(
            command, cwd=root, env={"PATH": os.defpath}, capture_output=True, check=False, timeout=PROBE_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _view(root: Path, data: Path) -> str:
    """Return the commands that mount the needed folders where closed ones are; empty if none is closed."""
    needed = dict.fromkeys(Path(one).resolve() for one in (root, sys.prefix, sys.base_prefix))
    closed: dict[Path, list[Path]] = {}
    for folder in needed:
        for parent in reversed(folder.parents):
            if not parent.stat().st_mode & 0o001:
                closed.setdefault(parent, []).append(folder)
                break
    lines = []
    for number, (parent, folders) in enumerate(closed.items()):
        stage = data / f"view-{number}"
        stage.mkdir(exist_ok=True)
        lines.append(f"mount -t tmpfs -o mode=755,size=1m tmpfs {shlex.quote(str(stage))}")
        for folder in folders:
            place = shlex.quote(str(stage / folder.relative_to(parent)))
            lines += [f"mkdir -p {place}", f"mount --bind {shlex.quote(str(folder))} {place}"]
        lines.append(f"mount --rbind {shlex.quote(str(stage))} {shlex.quote(str(parent))}")
    return "; ".join([*lines, f"cd {shlex.quote(str(root))}"]) if lines else ""
