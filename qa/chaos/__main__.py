"""Injects faults into a suite under load: `python -m qa.chaos --faults 500 --orders 20000` (or `make chaos`).

All random choices come from a seed, which is printed; `--seed` repeats the plan. Exit code 1 if an invariant is
violated. The result is appended to var/chaos/result.md; the latest one is also in var/chaos/result.json.
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
from qa.chaos.hot_product import sell
from qa.chaos.hot_product import table as sale_table
from qa.chaos.load import Load
from qa.chaos.report import append, failure, markdown, write_json
from qa.chaos.run import Plan, Run
from qa.chaos.sandbox import sandbox

KINDS = [
    *process_faults.FAULTS,
    *network_faults.FAULTS,
    *replay_faults.FAULTS,
    *clock_faults.FAULTS,
    *disk_faults.FAULTS,
]


def main():
    """The command line."""
    options = _parse()
    wanted = [kind for kind in KINDS if options.only in kind.name and not (options.quick and _is_slow(kind))]
    plan = Plan(
        faults=options.faults,
        orders=options.orders,
        seconds=options.minutes * 60,
        each=options.each,
        per_round=options.round,
        pause=options.pause,
        at_once=options.at_once,
        kinds=wanted,
    )
    print(
        f'seed {options.seed}; {len(wanted)} kinds of faults; `make chaos ARGS="--seed {options.seed} ..."` repeats it',
        flush=True,
    )
    with (
        ThreadPoolExecutor(options.at_once, "fault") as workers,
        sandbox(options.folder, small_disk=_needs_small_disk(wanted)) as running,
    ):
        kinds = plan.kinds = [kind for kind in wanted if running.clock or kind not in clock_faults.FAULTS]
        chance = random.Random(options.seed + 1)
        load = Load(running.customer, running.admin, clients=options.clients, rate=options.rate, chance=chance)
        outcome = Run(running, load, plan, options.seed, workers, say=_say).run()
        sale = sell(running, options.hot_product, options.seed, say=_say) if options.hot_product else []
        outcome.problems += [problem for one in sale for problem in one.problems]
        outcome.not_staged = [kind.name for kind in wanted if kind not in kinds]
        if not disk_faults.can_mount():
            outcome.not_staged.append("the database's disk is full")
        _check_coverage(outcome, kinds, options)
    table = markdown(outcome) + (f"\n{sale_table(sale)}" if sale else "")
    append(options.folder / "result.md", table)
    write_json(options.folder / "result.json", outcome, sale)
    print(table)
    if not outcome.sound:
        print(failure(outcome, options.folder))
    return 0 if outcome.sound else 1


def _parse():
    parser = argparse.ArgumentParser(prog="python -m qa.chaos", description=__doc__)
    parser.add_argument("--faults", type=int, default=0, help="minimum number of faults")
    parser.add_argument("--orders", type=int, default=0, help="minimum number of orders")
    parser.add_argument("--minutes", type=float, default=0.0, help="minimum duration")
    parser.add_argument("--each", type=int, default=0, help="minimum number of faults of each kind")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("CHAOS_SEED") or time.time()))
    parser.add_argument("--round", type=int, default=40, help="number of faults between two checks of the invariants")
    parser.add_argument("--pause", type=float, default=3.0, help="average seconds from one fault to the next")
    parser.add_argument("--at-once", type=int, default=4, help="maximum number of concurrent faults")
    parser.add_argument("--rate", type=float, default=30.0, help="maximum number of orders per second")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument(
        "--hot-product", type=int, default=0, metavar="ROUNDS", help="rounds of hot_product.py afterwards"
    )
    parser.add_argument("--only", default="", help="only kinds whose name contains this text")
    parser.add_argument(
        "--quick", action="store_true", help="without faults that last longer than 25 s or need a file system"
    )
    parser.add_argument("--folder", type=Path, default=ROOT / "var/chaos")
    return parser.parse_args()


def _is_slow(kind):
    """Does the fault last long, or need its own file system?"""
    return getattr(kind, "long", False) or _needs_small_disk([kind])


def _needs_small_disk(kinds):
    return any(isinstance(kind, disk_faults.DatabaseDiskFull) for kind in kinds)


def _check_coverage(outcome, kinds, options):
    """In a full run every kind of fault was injected, so every named point was reached."""
    least = max(options.each, int(options.faults >= 5 * len(kinds)))
    outcome.problems += [
        f"{kind.name}: injected {outcome.injected[kind.name]} times, not {least}"
        for kind in kinds
        if outcome.injected[kind.name] < least
    ]


def _say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
