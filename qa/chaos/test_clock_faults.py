"""The clock of the clock faults in a Python process: the wall clock jumps, the monotonic clock does not."""

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest

from deploy.local.process import StartError
from qa.chaos.clock_faults import DAY, SEEN_WITHIN_SECONDS, Clock

TELLS_TIME = """
import datetime, json, sys, time
import eventlet
for line in sys.stdin:
    began = time.monotonic()
    time.sleep(0.1)
    eventlet.sleep(0.1)
    now = datetime.datetime.now(datetime.timezone.utc)
    print(json.dumps([time.time(), now.timestamp(), time.monotonic() - began]), flush=True)
"""


@pytest.fixture
def clock():
    try:
        clock = Clock()
    except StartError as error:  # no root, no apt
        pytest.skip(str(error))
    yield clock
    clock.stop()


@pytest.fixture
def ask(clock):
    """A process under the clock: returns its time.time(), its datetime, and the duration of two sleeps of 0.1 s."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", TELLS_TIME],
        env=os.environ | clock.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def ask():
        print("?", file=process.stdin, flush=True)
        return json.loads(process.stdout.readline())

    yield ask
    process.stdin.close()
    process.stdout.close()
    process.wait(timeout=10)


def test_wall_time_jumps_with_the_clock_and_sleeps_keep_their_duration(clock, ask):
    for offset in (0, DAY, -3600, 0):
        clock.jump(offset)
        time.sleep(SEEN_WITHIN_SECONDS)
        wall, date, slept = ask()
        expected = datetime.now(UTC).timestamp() + offset
        assert wall == pytest.approx(expected, abs=2)
        assert date == pytest.approx(expected, abs=2)
        assert 0.2 <= slept < 5


def test_stop_removes_the_clocks_folder(clock):
    folder = clock._file.parent
    clock.stop()
    assert not folder.exists()
