"""Disk faults: PostgreSQL's disk is full (a small file system), and RabbitMQ raises its disk alarm.

The small file system is an ext4 in a sparse file, so filling it affects nothing else on the machine. Mounting it needs
root and Linux with loop devices. Elsewhere `can_mount()` is false, and only the broker's alarm is tested.
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
from deploy.local.rabbitmq import SHARED_CONFIG
from qa.chaos.broker_control import control, undo
from qa.chaos.superuser import superuser

SIZE = 3 * 1024**3  # PostgreSQL may keep a gigabyte of WAL
BALLAST = "ballast"
SMALLEST_CHUNK = 4096
CAP_SYS_ADMIN = 1 << 21
LIMIT = "set_disk_free_limit"  # the free space below which RabbitMQ blocks publishers
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
    """Mount a small file system on PostgreSQL's folder within the block; start and stop the servers inside it."""
    home = servers.data / "postgres"
    image = servers.data / "postgres.img"
    _unmount(home)
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    with image.open("wb") as file:
        file.truncate(SIZE)
    try:
        # Without a journal, an fsync costs no more than on the disk below. The machine does not lose power.
        _run("mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", str(image))
        _run("mount", "-o", "loop,discard", str(image), str(home))
        yield
    finally:
        _unmount(home)
        image.unlink(missing_ok=True)


def _unmount(home):
    """Unmount the folder, also after an earlier run that was killed."""
    while os.path.ismount(home):
        _run("umount", "--lazy", str(home))


def _run(tool, *arguments):
    done = subprocess.run([str(install.find(tool)), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{tool} failed: {done.stderr.strip() or done.stdout.strip()}")


@contextmanager
def filled(folder):
    """Fill the file system of `folder` completely within the block."""
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
        except OSError:  # the allocation needs metadata blocks, or PostgreSQL has taken some space
            chunk //= 2


@dataclass(frozen=True)
class DatabaseDiskFull:
    """PostgreSQL's disk is full for some seconds. Without `wal`, tables cannot grow, and statements fail. With it, the
    next segment of the write-ahead log cannot be created: PostgreSQL panics, and cannot recover until space is free.
    """

    name: str
    wal: bool

    def inject(self, sandbox, chance):
        postgres = sandbox.servers.postgres
        if not os.path.ismount(postgres.home):
            raise RuntimeError("PostgreSQL has no small disk here: start its server within small_disk()")
        held = chance.uniform(2.0, 10.0)
        with sandbox.exclusively("postgres"):
            try:
                with filled(postgres.home):
                    if self.wal:
                        exhaust_wal(postgres)
                    time.sleep(held)
                    died = postgres.pid is None
            finally:
                revive(postgres)
        return f"{self.name} for {held:.1f} s{', PostgreSQL ended' if died else ''}"


def exhaust_wal(postgres):
    """Switch WAL segments until there is no space for the next one."""
    with suppress(psycopg2.Error), superuser(postgres) as connection, connection.cursor() as cursor:
        for _ in range(100):
            cursor.execute("SELECT pg_switch_wal(), txid_current()")


def revive(postgres):
    """Wait until PostgreSQL has recovered, and start it if its process has ended."""
    deadline = time.monotonic() + 10
    while postgres.pid is not None and not postgres.is_ready() and time.monotonic() < deadline:
        time.sleep(0.1)
    if postgres.pid is None:
        postgres.start()
    postgres.wait_ready()


@dataclass(frozen=True)
class BrokerDiskAlarm:
    """RabbitMQ raises its disk alarm, and blocks all publishers."""

    name: str

    def inject(self, sandbox, chance):
        held = chance.uniform(3.0, 15.0)
        with sandbox.exclusively("rabbitmq"):
            try:
                control(sandbox.servers.rabbitmq, LIMIT, MORE_THAN_ANY_DISK)
                time.sleep(held)
            finally:
                undo(sandbox.servers.rabbitmq, LIMIT, configured_limit())
        return f"{self.name} for {held:.1f} s"


def configured_limit():
    """The limit in the broker's configuration file."""
    return re.search(r"^disk_free_limit\.absolute\s*=\s*(\S+)", SHARED_CONFIG.read_text(), re.MULTILINE).group(1)


FAULTS = [BrokerDiskAlarm("the broker's disk alarm")]
if can_mount():
    FAULTS += [
        DatabaseDiskFull("the database's disk is full", wal=False),
        DatabaseDiskFull("the database's disk is full for its log", wal=True),
    ]
