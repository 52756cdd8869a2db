"""Faults on the running suite: `python -m qa.chaos --faults 500 --orders 20000` (or `make chaos`).

Everything random comes from a seed, which is printed; `--seed` runs the same plan again. Exit code 1 when an
invariant does not hold. Results are added to var/chaos/result.md, and the last one is in var/chaos/result.json.
"""

import argparse
import os
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deploy.local.suite import ROOT
from qa.chaos import clock_faults, disk_faults, network_faults, process_faults, replay_faults
from qa.chaos.arena import arena
from qa.chaos.hot_product import sell
from qa.chaos.hot_product import table as sale_table
from qa.chaos.load import Load
from qa.chaos.report import append, failure, markdown, write_json
from qa.chaos.run import Plan, Run

KINDS = [
    *process_faults.FAULTS,
    *network_faults.FAULTS,
    *replay_faults.FAULTS,
    *clock_faults.FAULTS,
    *disk_faults.FAULTS,
]


def main():
    """The command line."""
    asked = _parse()
    wanted = [kind for kind in KINDS if asked.only in kind.name and not (asked.quick and _is_dear(kind))]
    plan = Plan(
        faults=asked.faults,
        orders=asked.orders,
        seconds=asked.minutes * 60,
        each=asked.each,
        per_round=asked.round,
        pause=asked.pause,
        at_once=asked.at_once,
        kinds=wanted,
    )
    print(
        f'seed {asked.seed}; {len(wanted)} kinds of faults; `make chaos ARGS="--seed {asked.seed} ..."` repeats it',
        flush=True,
    )
    with (
        ThreadPoolExecutor(asked.at_once, "fault") as workers,
        arena(asked.folder, small_disk=_needs_small_disk(wanted)) as running,
    ):
        kinds = plan.kinds = [kind for kind in wanted if running.clock or kind not in clock_faults.FAULTS]
        chance = random.Random(asked.seed + 1)
        load = Load(running.customer, running.admin, clients=asked.clients, rate=asked.rate, chance=chance)
        outcome = Run(running, load, plan, asked.seed, workers, say=_say).run()
        sale = sell(running, asked.hot_product, asked.seed, say=_say) if asked.hot_product else []
        outcome.problems += [problem for one in sale for problem in one.problems]
        outcome.not_staged = [kind.name for kind in wanted if kind not in kinds]
        if not disk_faults.can_mount():
            outcome.not_staged.append("the database's disk is full")
        _look_at_coverage(outcome, kinds, asked)
    table = markdown(outcome) + (f"\n{sale_table(sale)}" if sale else "")
    append(asked.folder / "result.md", table)
    write_json(asked.folder / "result.json", outcome, sale)
    print(table)
    if not outcome.sound:
        print(failure(outcome, asked.folder))
    return 0 if outcome.sound else 1


def _parse():
    parser = argparse.ArgumentParser(prog="python -m qa.chaos", description=__doc__)
    parser.add_argument("--faults", type=int, default=0, help="at least so many faults")
    parser.add_argument("--orders", type=int, default=0, help="at least so many orders")
    parser.add_argument("--minutes", type=float, default=0.0, help="at least so long")
    parser.add_argument("--each", type=int, default=0, help="every kind of fault at least so often")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("CHAOS_SEED") or time.time()))
    parser.add_argument("--round", type=int, default=40, help="faults between two verdicts")
    parser.add_argument("--pause", type=float, default=3.0, help="seconds from one fault to the next, on average")
    parser.add_argument("--at-once", type=int, default=4, help="faults at the same time at most")
    parser.add_argument("--rate", type=float, default=30.0, help="orders a second at most")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument(
        "--hot-product", type=int, default=0, metavar="ROUNDS", help="rounds of hot_product.py afterwards"
    )
    parser.add_argument("--only", default="", help="only kinds with this in their name")
    parser.add_argument(
        "--quick", action="store_true", help="without what holds for longer than 25 s or needs a disk of its own"
    )
    parser.add_argument("--folder", type=Path, default=ROOT / "var/chaos")
    return parser.parse_args()


def _is_dear(kind):
    """Does it hold for long, or need a file system to be made for it?"""
    return getattr(kind, "long", False) or _needs_small_disk([kind])


def _needs_small_disk(kinds):
    return any(isinstance(kind, disk_faults.DatabaseDiskFull) for kind in kinds)


def _look_at_coverage(outcome, kinds, asked):
    """In a full run every kind has struck, hence every named point has really been reached."""
    least = max(asked.each, int(asked.faults >= 5 * len(kinds)))
    outcome.problems += [
        f"{kind.name}: struck {outcome.struck[kind.name]} times, not {least}"
        for kind in kinds
        if outcome.struck[kind.name] < least
    ]


def _say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
