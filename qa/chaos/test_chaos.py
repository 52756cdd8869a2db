"""A minute of faults on a suite of its own, as `python -m qa.chaos` does it for half an hour.

In a process of its own: pytest's threads are eventlet's, and the faults need real ones.
CHAOS_SEED chooses another plan.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
SEED = os.environ.get("CHAOS_SEED", "20261122")


FORM = ("--quick", "--round", "14", "--pause", "2", "--hot-product", "2")


@pytest.fixture(scope="module")
def outcome():
    """What the run wrote down, and what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "qa.chaos", "--seed", SEED, *FORM],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stdout[-10_000:] + done.stderr[-10_000:]
    return SimpleNamespace(**json.loads((ROOT / "var/chaos/result.json").read_text()), output=done.stdout)


def test_nothing_is_lost_in_a_minute_of_faults(outcome):
    assert outcome.sound, outcome.output[-20_000:]
    assert sum(outcome.faults.values()) >= 10
    assert outcome.orders >= 100


def test_exactly_as_many_of_the_hot_product_are_sold_as_there_were(outcome):
    assert [one["sold"] for one in outcome.hot_product] == [100, 100], outcome.output[-20_000:]
    assert not any(one["problems"] for one in outcome.hot_product), outcome.output[-20_000:]
