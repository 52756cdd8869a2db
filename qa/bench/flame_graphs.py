"""A flame graph of each service under load, in var/profile/<service>.svg: `make profile`.

py-spy samples the processes from outside, a hundred times a second, while orders come at a steady rate (or, without
one, from a closed loop). It needs the permission to trace them: root, or kernel.yama.ptrace_scope=0.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from contracts.services import PROCESSES
from deploy.local.process import StartError
from qa.bench.bench_servers import running_servers
from qa.bench.shop import Inconsistent, Shop

FOLDER = Path("var/bench")
PROFILES = Path("var/profile")
PY_SPY = "var/bench-venv/bin/py-spy"
PER_SECOND = 100
WARM_UP = 3.0
MARGIN = 3.0  # the load lasts longer than the profile, so that no service is idle in it


def main():
    """The command line."""
    options = _parse()
    PROFILES.mkdir(parents=True, exist_ok=True)
    try:
        with running_servers(FOLDER) as servers:
            shop = Shop(servers)
            try:
                shop.start()
                shop.place(WARM_UP, clients=options.clients)
                profilers = _profile(shop, options.seconds)
                loaded, _cpu = shop.place(options.seconds + MARGIN, clients=options.clients, rate=options.rate)
                failed = [service for service, process in profilers.items() if process.wait(timeout=60)]
                shop.require_consistent()
            finally:
                shop.stop()
    except (StartError, Inconsistent) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{loaded.settled_per_second:.0f} orders settled per second during the profile; {PROFILES}/*.svg")
    for service in failed:
        print(f"no profile of {service}: see {PROFILES / service}.log", file=sys.stderr)
    return 1 if failed else 0


def _profile(shop, seconds):
    """Start py-spy on every service; returns its processes by service."""
    profilers = {}
    for service in PROCESSES:
        svg = PROFILES / f"{service}.svg"
        command = [
            PY_SPY,
            "record",
            "--pid",
            str(shop.suite.pid(service)),
            "--output",
            str(svg),
            "--format",
            "flamegraph",
        ]
        command += ["--duration", str(int(seconds)), "--rate", str(PER_SECOND), "--nonblocking"]
        with (PROFILES / f"{service}.log").open("w") as log:
            profilers[service] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    time.sleep(1)  # py-spy reads the symbols first
    return profilers


def _parse():
    parser = argparse.ArgumentParser(prog="python -m qa.bench.flame_graphs", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--rate", type=float, default=0.0, help="orders per second; 0: a closed loop of the clients")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
