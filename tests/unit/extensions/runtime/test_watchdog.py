"""A process ends if a loop stays stuck, also if a call blocks the whole process."""

import subprocess
import sys
import time
from pathlib import Path

import eventlet
import pytest
from eventlet.patcher import original

from extensions.runtime import watchdog
from extensions.runtime.progress import Loops
from extensions.runtime.watchdog import EXIT_CODE, Watchdog

ROOT = Path(__file__).parents[4]


@pytest.fixture
def ended():
    return []


def test_it_ends_the_process_after_enough_checks_in_a_row(ended):
    loops = Loops()
    dog = Watchdog(loops, 3, ended.append)
    with loops.running("relay", -1) as loop:
        dog.check()
        dog.check()
        assert ended == []
        dog.check()
        assert ended == [EXIT_CODE]
        loop.report_idle()
        dog.check()
    assert ended == [EXIT_CODE]


def test_a_loop_that_reports_meanwhile_begins_the_count_again(ended):
    loops = Loops()
    dog = Watchdog(loops, 3, ended.append)
    with loops.running("relay", -1) as loop:
        dog.check()
        dog.check()
        loop.report_idle()
        dog.check()
        loop.report_progress()
        dog.check()
        dog.check()
    assert ended == []


def test_a_call_that_blocks_the_whole_process_is_found(ended, monkeypatch):
    monkeypatch.setattr(watchdog, "CHECK_SECONDS", 0.02)
    monkeypatch.setattr(watchdog, "LOCAL_SECONDS", 0.1)
    dog = Watchdog(Loops(), 0.02, ended.append)
    dog.start()
    try:
        eventlet.sleep(0.05)
        sleep, deadline = original("time").sleep, time.monotonic() + 60
        while not ended and time.monotonic() < deadline:
            sleep(0.05)
        assert ended
    finally:
        dog.stop()


PROCESS = """
import time
from extensions.runtime.progress import Loops
from extensions.runtime.watchdog import Watchdog

loops = Loops()
with loops.running("relay", -1):
    Watchdog(loops, 1).start()
    time.sleep(60)
"""


def test_the_process_really_ends():
    process = subprocess.run([sys.executable, "-c", PROCESS], cwd=ROOT, timeout=50, capture_output=True, check=False)
    assert process.returncode == EXIT_CODE
