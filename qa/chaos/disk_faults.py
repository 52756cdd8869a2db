"""Full disks: PostgreSQL's, on a small file system of its own, and RabbitMQ's, by its own alarm.

The small file system is an ext4 in a sparse file, so that filling it touches nothing else on the machine. Mounting it
needs root and a Linux with loop devices; elsewhere `can_mount()` says no, and only the broker's alarm is left.
"""

import os
import re
import shutil
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg2

from deploy.local import install
from deploy.local.postgres import SUPERUSER
from deploy.local.rabbitmq import SHARED_CONFIG

SIZE = 3 * 1024**3  # PostgreSQL may keep a gigabyte of WAL
BALLAST = "ballast"
SMALLEST_CHUNK = 4096
CAP_SYS_ADMIN = 1 << 21
MORE_THAN_ANY_DISK = "1000000GB"


def can_mount():
    """May this process mount a file system from a file?"""
    try:
        capabilities = re.search(r"^CapEff:\s*(\w+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        return False
    tools = all(install.find(tool) for tool in ("mkfs.ext4", "mount", "umount"))
    return tools and Path("/dev/loop-control").exists() and bool(int(capabilities.group(1), 16) & CAP_SYS_ADMIN)


@contextmanager
def small_disk(servers):
    """PostgreSQL's folder is a file system of its own within the block; start and stop the servers inside of it."""
    home = servers.data / "postgres"
    image = servers.data / "postgres.img"
    _unmount(home)
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    with image.open("wb") as file:
        file.truncate(SIZE)
    try:
        # Nobody pulls the plug of this machine, and without a journal an fsync is no dearer than on the disk below.
        _run("mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", str(image))
        _run("mount", "-o", "loop,discard", str(image), str(home))
        yield
    finally:
        _unmount(home)
        image.unlink(missing_ok=True)


def _unmount(home):
    """Also what an earlier run, that was killed, has left."""
    while os.path.ismount(home):
        _run("umount", "--lazy", str(home))


def _run(tool, *arguments):
    done = subprocess.run([str(install.find(tool)), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{tool} failed: {done.stderr.strip() or done.stdout.strip()}")


@contextmanager
def filled(folder):
    """No byte is left on the file system of `folder` within the block."""
    ballast = folder / BALLAST
    try:
        with ballast.open("wb") as file:
            _allocate_all(file.fileno(), folder)
        yield
    finally:
        ballast.unlink(missing_ok=True)


def _allocate_all(descriptor, folder):
    end, chunk = 0, SIZE
    while chunk >= SMALLEST_CHUNK and (free := shutil.disk_usage(folder).free):
        chunk = min(chunk, free)
        try:
            os.posix_fallocate(descriptor, end, chunk)
            end += chunk
        except OSError:  # the allocation itself needs some room, or others have taken it meanwhile
            chunk //= 2


@dataclass(frozen=True)
class DatabaseDiskFull:
    """PostgreSQL's disk is full for some seconds. Without `wal`, tables cannot grow, and statements fail. With it, the
    next segment of the write-ahead log cannot be made: PostgreSQL panics, and cannot recover before there is room.
    """

    name: str
    wal: bool

    def strike(self, arena, chance):
        postgres = arena.servers.postgres
        if not os.path.ismount(postgres.home):
            raise RuntimeError("PostgreSQL has no small disk here: start its server within small_disk()")
        held = chance.uniform(2.0, 10.0)
        with arena.exclusively("postgres"):
            try:
                with filled(postgres.home):
                    if self.wal:
                        exhaust_wal(postgres)
                    time.sleep(held)
                    died = postgres.pid is None
            finally:
                revive(postgres)
        return f"{self.name} for {held:.1f} s{', it died of it' if died else ''}"


def exhaust_wal(postgres):
    """Begin one new segment after the other, until there is no room for the next."""
    password = (postgres.home / "superuser-password").read_text()
    with suppress(psycopg2.Error):
        connection = psycopg2.connect(
            host="127.0.0.1",
            port=postgres.port,
            dbname="postgres",
            user=SUPERUSER,
            password=password,
            connect_timeout=5,
        )
        connection.autocommit = True
        with connection.cursor() as cursor:
            for _ in range(100):
                cursor.execute("SELECT pg_switch_wal(), txid_current()")


def revive(postgres):
    """There is room again: a PostgreSQL that is still trying to recover goes on, one that has given up is started."""
    deadline = time.monotonic() + 10
    while postgres.pid is not None and not postgres.is_ready() and time.monotonic() < deadline:
        time.sleep(0.1)
    if postgres.pid is None:
        postgres.start()
    postgres.wait_ready()


@dataclass(frozen=True)
class BrokerDiskAlarm:
    """RabbitMQ takes its disk for full, and reads nothing more from those who publish."""

    name: str

    def strike(self, arena, chance):
        held = chance.uniform(3.0, 15.0)
        with arena.exclusively("rabbitmq"):
            try:
                set_disk_free_limit(arena.servers.rabbitmq, MORE_THAN_ANY_DISK)
                time.sleep(held)
            finally:
                set_disk_free_limit(arena.servers.rabbitmq, configured_limit())
        return f"{self.name} for {held:.1f} s"


def set_disk_free_limit(rabbitmq, limit):
    """Say below which free space RabbitMQ blocks its publishers."""
    control = install.rabbitmq().with_name("rabbitmqctl")
    done = subprocess.run(
        [str(control), "--quiet", "set_disk_free_limit", limit],
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", **rabbitmq.environment()},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"rabbitmqctl failed: {done.stderr.strip() or done.stdout.strip()}")


def configured_limit():
    """What the broker's configuration says."""
    return re.search(r"^disk_free_limit\.absolute\s*=\s*(\S+)", SHARED_CONFIG.read_text(), re.MULTILINE).group(1)


FAULTS = [BrokerDiskAlarm("the broker's disk alarm")]
if can_mount():
    FAULTS += [
        DatabaseDiskFull("the database's disk is full", wal=False),
        DatabaseDiskFull("the database's disk is full for its log", wal=True),
    ]
