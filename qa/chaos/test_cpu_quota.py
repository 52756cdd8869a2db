"""A process gets its share of a processor and no more, by either way, and all of it afterwards."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from qa.chaos import cpu_quota
from qa.chaos.cpu_quota import DutyCycle, limited, way

SHARE = 0.25
SECONDS = 1.0


@pytest.fixture
def busy():
    """A process that uses a whole processor."""
    process = subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"])
    yield process
    process.send_signal(signal.SIGCONT)
    process.kill()
    process.wait()


def used(process):
    """The share of a processor that the process uses."""
    before, began = cpu_quota._cpu_seconds(process.pid), time.monotonic()
    time.sleep(SECONDS)
    return (cpu_quota._cpu_seconds(process.pid) - before) / (time.monotonic() - began)


def state(process):
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_duty_cycle_limits_a_process_and_lets_it_continue(busy):
    with DutyCycle(lambda: [busy.pid], SHARE).applied() as quota:
        assert used(busy) < 0.5
        assert quota.note().endswith("(SIGSTOP)")
    assert state(busy) != "T"


def test_a_duty_cycle_continues_the_process_also_after_an_exception(busy):
    with suppress(ZeroDivisionError), DutyCycle(lambda: [busy.pid], 0.01).applied():
        time.sleep(0.05)
        1 / 0  # noqa: B018
    assert state(busy) != "T"


def test_a_cgroup_limits_a_process_and_is_removed(busy):
    parent, version = way()
    if parent is None:
        pytest.skip("no cgroup with a quota can be created here")
    before = Path(f"/proc/{busy.pid}/cgroup").read_text()
    with limited(lambda: [busy.pid], share=SHARE, cores=SHARE) as quota:
        assert Path(f"/proc/{busy.pid}/cgroup").read_text() != before
        assert used(busy) < 0.5
        assert f"cgroup v{version}" in quota.note()
    assert Path(f"/proc/{busy.pid}/cgroup").read_text() == before
    assert not list(parent.glob(f"{cpu_quota.PREFIX}{os.getpid()}-*"))


def test_without_a_cgroup_the_duty_cycle_is_used(monkeypatch):
    monkeypatch.setattr(cpu_quota, "way", lambda: (None, 0))
    with limited(list, share=SHARE, cores=SHARE) as quota:
        assert isinstance(quota, DutyCycle)
    assert "SIGSTOP" in cpu_quota.describe_way()


def test_groups_of_a_killed_run_are_removed(tmp_path):
    (tmp_path / f"{cpu_quota.PREFIX}999999999-1").mkdir()
    (tmp_path / f"{cpu_quota.PREFIX}{os.getpid()}-1").mkdir()
    cpu_quota._remove_leftovers(tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == [f"{cpu_quota.PREFIX}{os.getpid()}-1"]
