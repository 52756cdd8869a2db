"""Sends 100,000 or more generated requests to a private suite: `make fuzz`.

Every response is checked against the OpenAPI document: no 5xx; no status, header, media type or field that is not in
it; no invalid request is accepted, and no valid one is refused. In each round a customer and an administrator send
requests concurrently; each run has its own seed, counted up from `--seed`.
"""

import argparse
import contextlib
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deploy import migrate, seed
from deploy.local.servers import Servers, remove_data
from deploy.local.suite import Suite
from qa.fuzz.run import ROOT, Run, run
from qa.support.client import ADMIN, CUSTOMER
from qa.support.own_suite import set_up

FOLDER = ROOT / "var/fuzz"
PASSWORD = "Demo-pass-2026!"
USERS = (CUSTOMER, ADMIN)
EXAMPLES = 100


@contextlib.contextmanager
def suite(folder: Path) -> Iterator[str]:
    """Run the suite on private servers, with the demo seed; yields the gateway's URL."""
    remove_data(folder)
    servers = Servers(folder, environ={})
    with contextlib.ExitStack() as stack:
        stack.callback(servers.stop)
        environment = set_up(folder, servers.start())
        migrate.migrate(say=lambda _line: None)
        running = Suite(environment, log_dir=folder / "log")
        stack.callback(running.stop)
        running.start()
        running.wait_ready(90)
        seed.run(say=lambda _line: None)
        yield f"http://{environment['GATEWAY_ADDRESS']}"


def fuzz(url: str, requests: int, first_seed: int, seconds: int) -> int:
    """Run rounds until so many requests have responses; print their results. Returns the number of failed runs."""
    responses: Counter = Counter()
    failed, number, began = 0, 0, time.monotonic()
    while responses.total() < requests:
        results = one_round(url, number, first_seed + number * len(USERS), seconds)
        number += 1
        for result in results:
            responses += result.responses
            failed += bool(result.failures)
        if not any(result.responses for result in results):
            print(results[0].failures)
            return failed
    report(responses, failed, time.monotonic() - began, f"{first_seed} to {first_seed + number * len(USERS) - 1}")
    return failed


def one_round(url: str, number: int, first_seed: int, seconds: int) -> list[Run]:
    """Run all users concurrently, each with its own seed and process."""

    def run_user(index: int) -> Run:
        email, seed_of_user = USERS[index], first_seed + index
        folder = FOLDER / f"round-{number + 1}-{email.partition('@')[0]}"
        result = run(url, email, PASSWORD, seconds=seconds, seed=seed_of_user, folder=folder, examples=EXAMPLES)
        verdict = f"FAILED, see {folder}/report.txt" if result.failures else "all as documented"
        print(
            f"round {number + 1}, {email}, seed {seed_of_user}: {result.responses.total()} requests, {verdict}",
            flush=True,
        )
        return result

    with ThreadPoolExecutor(len(USERS)) as pool:
        return list(pool.map(run_user, range(len(USERS))))


def report(responses: Counter, failed: int, spent: float, seeds: str) -> None:
    """Print the counts."""
    statuses = Run(responses, "").statuses
    print(f"{responses.total()} requests in {spent:.0f} s, seeds {seeds}")
    print("  ".join(f"{status}: {count}" for status, count in sorted(statuses.items())))
    server_errors = sum(count for status, count in statuses.items() if status >= 500)
    print(f"{len(responses)} combinations of operation and status, {server_errors} responses 5xx, {failed} failed runs")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--round-seconds", type=int, default=300)
    parser.add_argument("--url", help="a running suite with the demo seed, instead of a private one")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        url = options.url or stack.enter_context(suite(FOLDER))
        print(f"{options.requests} requests at {url}, first seed {options.seed}", flush=True)
        return 1 if fuzz(url, options.requests, options.seed, options.round_seconds) else 0


if __name__ == "__main__":
    sys.exit(main())
