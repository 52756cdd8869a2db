"""The benchmark: `make bench` (about two hours), `make bench-quick` (under two minutes).

It measures the suite, unmodified Nameko, a FastAPI + FastStream version of the same saga, and the floor (a hand-written
lower bound) on the same private servers, and prints every figure and whether the goals are met. The result is in
var/bench/result.json, and in docs/performance.md after a run of all parts (`--docs` writes it after any run). Exit code
1 if a consistency check failed after a run, whose figures then do not count, or if something could not be measured.
`--add` combines the parts and rounds of several runs to one result.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from deploy.local.process import StartError
from qa.bench import report
from qa.bench.bench_servers import running_servers
from qa.bench.extras import PARTS as EXTRAS
from qa.bench.extras import Extras
from qa.bench.goals import figures
from qa.bench.memory import Load
from qa.bench.rounds import QUICK, TINY, Bench, Lengths

FOLDER = Path("var/bench")
PEAK = "suite: settled/s, 128 clients"
# The values of --only. "stock" is unmodified Nameko, "floor" the lower bound without a framework (qa/bench/floor.py).
ROUND = ("floor", "faststream", "stock", "suite")
PLOT = "docs/performance.svg"
BENCH_PYTHON = "var/bench-venv/bin/python"


def main():
    """The command line."""
    options = _parse()
    began, rounds = time.time(), options.rounds or (5 if not (options.quick or options.tiny) else 1)
    lengths = TINY if options.tiny else QUICK if options.quick else Lengths()
    is_whole = not (options.quick or options.tiny or options.only)
    _say(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}; {rounds} round(s)")
    try:
        earlier = report.earlier(FOLDER / "result.json", vars(options)) if options.add else None
        with running_servers(FOLDER) as servers:
            bench = Bench(servers, lengths, _say)
            in_rounds = [part for part in options.only or ROUND if part in ROUND]
            for number in range(rounds if in_rounds else 0):
                _say(f"round {number + 1}")
                bench.round(number, in_rounds)
            peak = figures((earlier["rounds"] if earlier else []) + bench.measured.rounds).get(PEAK)
            if peak and (is_whole or options.sweep):
                bench.sweep(options.sweep or 20.0, peak.median)
            if peak and (is_whole or options.long):
                bench.long_run(options.long or 600.0, peak.median / 2)
            extras = Extras(servers, bench.measured, _say, tiny=options.tiny, load=_memory_load(options))
            extras.run([part for part in EXTRAS if is_whole or part in options.only])
    except (StartError, report.Incomparable) as error:
        print(error, file=sys.stderr)
        return 2
    found = report.facts(bench.measured, vars(options), began)
    found = report.combine(earlier, found) if earlier else found
    report.write_json(FOLDER / "result.json", found)
    print("\n" + report.terminal(found))
    if options.compare:
        print("\n" + "\n".join(report.compare(json.loads(options.compare.read_text()), found)))
    if is_whole or options.docs:
        if found["sweep"]:
            subprocess.run([BENCH_PYTHON, "-m", "qa.bench.plot", FOLDER / "result.json", PLOT], check=True)
        report.put_into_docs(found)
    return 1 if found["problems"] else 0


def _parse():
    parser = argparse.ArgumentParser(prog="python -m qa.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--tiny", action="store_true", help="a few dozen orders: only to test the benchmark")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument(
        "--only", choices=(*ROUND, *EXTRAS), action="append", default=[], help="this part (can be repeated)"
    )
    parser.add_argument("--sweep", type=float, default=0.0, help="seconds at each offered load, for the plot")
    parser.add_argument("--long", type=float, default=0.0, help="seconds of the long run")
    parser.add_argument("--memory", type=float, default=1800.0, help="seconds of the memory part")
    parser.add_argument("--memory-rate", type=float, default=40.0, help="orders per second of the memory part")
    parser.add_argument("--add", action="store_true", help="add to the existing result, of the same code and lengths")
    parser.add_argument("--compare", type=Path, help="an earlier result.json")
    parser.add_argument("--docs", action="store_true", help="write docs/performance.md also after a partial run")
    options = parser.parse_args()
    if options.compare and not options.compare.exists():
        parser.error(f"there is no {options.compare}")
    return options


def _memory_load(options):
    every = 1.0 if options.tiny or options.memory < 300 else 10.0
    return Load(seconds=10.0 if options.tiny else options.memory, orders=options.memory_rate, every=every)


def _say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
