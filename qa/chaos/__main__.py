"""Injects faults into a suite under load: `python -m qa.chaos --faults 500 --orders 20000` (or `make chaos`).

With `--slow 500`, slow faults follow (slow_kinds.py); without other faults, they are the only ones. All random choices
come from a seed, which is printed; `--seed` repeats the plan. Exit code 1 if an invariant is violated, or if something
slow delays a request that does not need it. The result is appended to var/chaos/result.md; the latest one is also in
var/chaos/result.json.
"""

import argparse
import os
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from deploy.local.suite import ROOT
from qa.chaos import clock_faults, disk_faults, duplicate_event_faults, network_faults, process_faults, slow_kinds
from qa.chaos.audience import Audience
from qa.chaos.cpu_quota import describe_way
from qa.chaos.hot_product import BUYERS, sell
from qa.chaos.hot_product import table as sale_table
from qa.chaos.load import Load
from qa.chaos.probes import Probes
from qa.chaos.report import append, failure, markdown, told_table, write_json
from qa.chaos.run import DECIDED_WITHIN, Plan, Run
from qa.chaos.sandbox import ORDER_DEADLINE_SECONDS, sandbox
from qa.chaos.watch import LEAST_LIMIT_SECONDS, Watch
from qa.support.machine_speed import slowness

KINDS = [
    *process_faults.FAULTS,
    *network_faults.FAULTS,
    *duplicate_event_faults.FAULTS,
    *clock_faults.FAULTS,
    *disk_faults.FAULTS,
]
ORDERS_PER_SLOW_FAULT = 20
# The brief form shows what is refused, or stays stuck after a fault of a second. It has too few samples, on a machine
# that also runs other tests, to show more.
BRIEF_AT_ONCE, BRIEF_SECONDS = 5, (0.8, 1.2)
# The brief form runs beside other tests, on machines of any speed: it finds what is refused or stays stuck. On a slow
# machine it makes fewer requests, and its faults last longer.
BRIEF_LEAST_LIMIT, BRIEF_FACTOR = 3.0, 10.0


def main():
    """The command line."""
    options = _parse()
    options.slowness = 1.0
    if options.brief:
        options.slowness = slowness()
        options.rate, options.slow_rate = options.rate / options.slowness, options.slow_rate / options.slowness
    crash, slow = _wanted(options)
    print(
        f"seed {options.seed}; {len(crash)} kinds of crash faults, {len(slow)} of slow faults; "
        f'`make chaos ARGS="--seed {options.seed} ..."` repeats it',
        flush=True,
    )
    outcomes, sale = {"crash": None, "slow": None}, []
    with (
        ThreadPoolExecutor(max(options.at_once, BRIEF_AT_ONCE), "fault") as workers,
        sandbox(options.folder, small_disk=_needs_small_disk(crash)) as running,
    ):
        chance = random.Random(options.seed + 1)
        running.audience = audience = Audience(running, options.seed)
        load = Load(audience.users, running.admin, clients=options.clients, rate=options.rate, chance=chance)
        running.load = load
        audience.start(load)
        load.start()
        try:
            if crash:
                outcomes["crash"] = _inject_crashes(running, load, crash, options, workers)
            if slow and not (crash and outcomes["crash"].is_broken):
                outcomes["slow"] = _inject_slowness(running, load, slow, options, workers)
        finally:
            load.stop()
            audience.stop()
        told = audience.counts()
        sale = []
        if options.hot_product:
            sale = sell(running, options.hot_product, options.seed, buyers=options.buyers, say=_say)
    return _report([one for one in outcomes.values() if one], outcomes, told, sale, options)


def _wanted(options):
    """Return the kinds of crash faults and of slow faults that the options ask for."""

    def is_wanted(kind):
        return options.only in kind.name and not any(text in kind.name for text in options.without)

    slow = [kind for kind in slow_kinds.KINDS if is_wanted(kind)] if options.slow or options.brief else []
    if slow and not (options.faults or options.minutes or options.each):
        return [], slow
    return [kind for kind in KINDS if is_wanted(kind) and not (options.quick and _is_slow(kind))], slow


def _inject_crashes(running, load, wanted, options, workers):
    kinds = [kind for kind in wanted if running.clock or kind not in clock_faults.FAULTS]
    plan = Plan(
        faults=options.faults,
        orders=options.orders,
        seconds=options.minutes * 60,
        each=options.each,
        per_round=options.round,
        pause=options.pause,
        at_once=options.at_once,
        time_factor=options.time_factor,
        kinds=kinds,
    )
    outcome = Run(running, load, plan, options.seed, workers, say=_say).run()
    outcome.not_staged = [kind.name for kind in wanted if kind not in kinds]
    if not disk_faults.can_mount():
        outcome.not_staged.append("the database's disk is full")
    _check_coverage(outcome, kinds, max(options.each, int(options.faults >= 5 * len(kinds))))
    return outcome


def _inject_slowness(running, load, kinds, options, workers):
    """Slow faults under a lower load, so that the probes measure the fault and not the load."""
    load.rate = options.slow_rate
    plan = Plan(
        faults=options.slow,
        orders=ORDERS_PER_SLOW_FAULT * options.slow,
        each=options.each,
        per_round=options.round,
        pause=1.0,
        at_once=options.slow_at_once,
        decided_within=DECIDED_WITHIN + ORDER_DEADLINE_SECONDS,  # with a provider that hangs, by the orders' deadline
        time_factor=options.time_factor,
        kinds=kinds,
    )
    probes = Probes(running, load, options.slowness)
    running.watch = Watch(probes, least=options.floor_ms / 1000)
    if options.brief:
        plan = replace(plan, each=1, each_once=True, pause=0.1, at_once=BRIEF_AT_ONCE)
        running.watch = Watch(
            probes, normal_seconds=5.0, least=BRIEF_LEAST_LIMIT, factor=BRIEF_FACTOR, recovery=1.0, once=True
        )
        running.slow_seconds = tuple(seconds * options.slowness for seconds in BRIEF_SECONDS)
        # Faults of the same service at the same time leave the probes of the others unaffected. These two, and orders
        # for Redis, have enough traffic for an effect in a second.
        running.preferred = (random.Random(options.seed).choice(("inventory", "payments")), "orders")
    _say(f"slow faults; processor quotas by {describe_way()}")
    outcome = Run(running, load, plan, options.seed, workers, say=_say, watch=running.watch).run()
    _check_coverage(outcome, kinds, max(plan.each, int(options.slow >= 5 * len(kinds))))
    return outcome


def _report(done, outcomes, told, sale, options):
    """Print and store the results; returns the exit code."""
    if sale and done:
        done[0].problems += [problem for one in sale for problem in one.problems]
    table = "\n".join([*map(markdown, done), told_table(told), *([sale_table(sale)] if sale else [])])
    append(options.folder / "result.md", table)
    write_json(options.folder / "result.json", outcomes, told, sale, (options.slowness + slowness()) / 2)
    print(table)
    for one in done:
        if not one.sound:
            print(failure(one, options.folder))
    return 0 if all(one.sound for one in done) else 1


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
    parser.add_argument("--buyers", type=int, default=BUYERS, help="number of concurrent buyers of the hot product")
    parser.add_argument("--slow", type=int, default=0, help="minimum number of slow faults, after the others")
    parser.add_argument("--slow-rate", type=float, default=5.0, help="orders per second while there are slow faults")
    parser.add_argument("--slow-at-once", type=int, default=2, help="maximum number of concurrent slow faults")
    parser.add_argument(
        "--floor-ms", type=float, default=1000 * LEAST_LIMIT_SECONDS, help="lowest limit of a probe's p99"
    )
    parser.add_argument("--brief", action="store_true", help="each slow fault once, for a moment")
    parser.add_argument(
        "--time-factor", type=float, default=1.0, help="multiply the limits by this, on a slow or busy machine"
    )
    parser.add_argument("--only", default="", help="only kinds whose name contains this text")
    parser.add_argument("--without", action="append", default=[], help="no kinds whose name contains this text")
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


def _check_coverage(outcome, kinds, least):
    """In a full run every kind of fault was injected, so every named point was reached."""
    outcome.problems += [
        f"{kind.name}: injected {outcome.injected[kind.name]} times, not {least}"
        for kind in kinds
        if outcome.injected[kind.name] < least
    ]


def _say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
