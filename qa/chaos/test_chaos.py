"""A minute of faults on a private suite; `python -m qa.chaos` runs half an hour of them.

It runs in a separate process: pytest's threads are green threads of eventlet, and the faults need real ones.
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
    """The result of the run, and its output."""
    done = subprocess.run(
        [sys.executable, "-m", "qa.chaos", "--seed", SEED, *FORM],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stdout[-10_000:] + done.stderr[-10_000:]
    return SimpleNamespace(**json.loads((ROOT / "var/chaos/result.json").read_text()), output=done.stdout)


def test_all_invariants_hold_after_a_minute_of_faults(outcome):
    assert outcome.sound, outcome.output[-20_000:]
    assert sum(outcome.faults.values()) >= 10
    assert outcome.orders >= 100


def test_exactly_all_units_of_the_hot_product_are_sold(outcome):
    assert [one["sold"] for one in outcome.hot_product] == [100, 100], outcome.output[-20_000:]
    assert not any(one["problems"] for one in outcome.hot_product), outcome.output[-20_000:]
