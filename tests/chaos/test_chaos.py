"""A minute of faults on a suite of its own, as `python -m tests.chaos` does it for half an hour.

In a process of its own: pytest's threads are eventlet's, and the faults need real ones.
CHAOS_SEED chooses another plan.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SEED = os.environ.get("CHAOS_SEED", "20261122")


def run(module, *arguments, seconds):
    """Run one of the programs of this folder; its output, which says what went wrong."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, f"{module} {' '.join(arguments)}\n{done.stdout[-20_000:]}\n{done.stderr[-5_000:]}"
    return done.stdout


def test_nothing_is_lost_in_a_minute_of_faults():
    output = run("tests.chaos", "--seed", SEED, "--quick", "--round", "14", "--pause", "2", seconds=400)
    assert f"seed {SEED}" in output
    assert "| verdict | sound |" in output
