"""The chaos clock in a Python process: the wall clock jumps and comes back, time that passes does not notice."""

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
    """A process under the clock: what time.time() and datetime say there, and how long two naps of 0.1 s took."""
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


def test_a_process_under_the_clock_jumps_with_it_and_its_naps_stay_as_long(clock, ask):
    for offset in (0, DAY, -3600, 0):
        clock.jump(offset)
        time.sleep(SEEN_WITHIN_SECONDS)
        wall, date, slept = ask()
        expected = datetime.now(UTC).timestamp() + offset
        assert wall == pytest.approx(expected, abs=2)
        assert date == pytest.approx(expected, abs=2)
        assert 0.2 <= slept < 5


def test_the_clock_leaves_nothing_behind(clock):
    folder = clock._file.parent
    clock.stop()
    assert not folder.exists()
