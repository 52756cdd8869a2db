"""How fast is it? `make bench` (about two hours), `make bench-quick` (under two minutes).

Measures the suite beside stock Nameko, a FastAPI + FastStream version of the same saga, and the floor, on private
servers of its own, and prints every figure beside the goals. The result is in var/bench/result.json, and in
docs/performance.md after a run of all parts (`--docs` writes it after any). Exit code 1 when the books of the suite did
not add up after a run, whose figures then do not count, or when something could not be measured. Two hours need not be
had in one piece: with `--add` the parts and rounds of several runs make one result.
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
from qa.bench.extras import PARTS as EXTRAS
from qa.bench.extras import Extras
from qa.bench.goals import figures
from qa.bench.ground import ground
from qa.bench.memory import Load
from qa.bench.rounds import QUICK, TINY, Bench, Lengths

FOLDER = Path("var/bench")
PEAK = "suite: settled/s, 128 clients"
ROUND = ("floor", "faststream", "stock", "suite")
PLOT = "docs/performance.svg"
BENCH_PYTHON = "var/bench-venv/bin/python"


def main():
    """The command line."""
    asked = _parse()
    began, rounds = time.time(), asked.rounds or (5 if not (asked.quick or asked.tiny) else 1)
    lengths = TINY if asked.tiny else QUICK if asked.quick else Lengths()
    is_whole = not (asked.quick or asked.tiny or asked.only)
    _say(f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}; {rounds} round(s)")
    try:
        earlier = report.earlier(FOLDER / "result.json", vars(asked)) if asked.add else None
        with ground(FOLDER) as servers:
            bench = Bench(servers, lengths, _say)
            in_rounds = [part for part in asked.only or ROUND if part in ROUND]
            for number in range(rounds if in_rounds else 0):
                _say(f"round {number + 1}")
                bench.round(number, in_rounds)
            peak = figures((earlier["rounds"] if earlier else []) + bench.measured.rounds).get(PEAK)
            if peak and (is_whole or asked.sweep):
                bench.sweep(asked.sweep or 20.0, peak.median)
            if peak and (is_whole or asked.long):
                bench.long_run(asked.long or 600.0, peak.median / 2)
            extras = Extras(servers, bench.measured, _say, tiny=asked.tiny, load=_memory_load(asked))
            extras.run([part for part in EXTRAS if is_whole or part in asked.only])
    except (StartError, report.Unlike) as error:
        print(error, file=sys.stderr)
        return 2
    found = report.facts(bench.measured, vars(asked), began)
    found = report.together(earlier, found) if earlier else found
    report.write_json(FOLDER / "result.json", found)
    print("\n" + report.terminal(found))
    if asked.compare:
        print("\n" + "\n".join(report.compare(json.loads(asked.compare.read_text()), found)))
    if is_whole or asked.docs:
        if found["sweep"]:
            subprocess.run([BENCH_PYTHON, "-m", "qa.bench.plot", FOLDER / "result.json", PLOT], check=True)
        report.put_into_docs(found)
    return 1 if found["problems"] else 0


def _parse():
    parser = argparse.ArgumentParser(prog="python -m qa.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--tiny", action="store_true", help="a few dozen orders: only to see that the bench works")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument(
        "--only", choices=(*ROUND, *EXTRAS), action="append", default=[], help="this part (can be repeated)"
    )
    parser.add_argument("--sweep", type=float, default=0.0, help="seconds at each offered load, for the plot")
    parser.add_argument("--long", type=float, default=0.0, help="seconds of the long run")
    parser.add_argument("--memory", type=float, default=1800.0, help="seconds of the memory's part")
    parser.add_argument("--memory-rate", type=float, default=40.0, help="orders a second in it")
    parser.add_argument("--add", action="store_true", help="to the result that is there, of the same code and lengths")
    parser.add_argument("--compare", type=Path, help="an earlier result.json")
    parser.add_argument("--docs", action="store_true", help="write docs/performance.md even if this is no whole run")
    asked = parser.parse_args()
    if asked.compare and not asked.compare.exists():
        parser.error(f"there is no {asked.compare}")
    return asked


def _memory_load(asked):
    every = 1.0 if asked.tiny or asked.memory < 300 else 10.0
    return Load(seconds=10.0 if asked.tiny else asked.memory, orders=asked.memory_rate, every=every)


def _say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
