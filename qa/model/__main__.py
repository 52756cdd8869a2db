"""Explores the large scenarios: python -m qa.model --states 1000000; or tests all mutants: --mutants."""

import argparse
import resource
import sys
import time

from qa.model.explorer import explore
from qa.model.mutants import MUTANTS
from qa.model.scenarios import INBOX, LONG
from qa.model.tables import TABLES, Coverage


def main():
    """The command line. Exit code 1 if an invariant is violated, a row is not covered, or a mutant survives."""
    parser = argparse.ArgumentParser(prog="python -m qa.model", description=__doc__)
    parser.add_argument("--states", type=int, default=1_000_000, help="minimum number of distinct states")
    parser.add_argument("--mutants", action="store_true", help="test the mutants, and print their table")
    arguments = parser.parse_args()
    sys.exit(not (check_mutants() if arguments.mutants else explore_all(arguments.states)))


def explore_all(wanted):
    """Explore all large scenarios; returns whether every invariant holds and every row was covered."""
    began, reports = time.monotonic(), []
    for scenario in (*LONG, *INBOX):
        report = explore(scenario)
        reports.append(report)
        print(report if scenario in LONG else f"{report} (not counted)", flush=True)
        if report.broken:
            print(report.trace)
    coverages = [Coverage.of(table, reports) for table in TABLES]
    print(*coverages, sep="\n")
    counted = reports[: len(LONG)]
    states = sum(report.states for report in counted)
    transitions = sum(report.transitions for report in counted)
    clock, memory = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{states:,} distinct states, {transitions:,} transitions, {clock:.0f} s ({time.process_time():.0f} s of CPU)"
    )
    print(f"{memory:.1f} GB of memory")
    if states < wanted:
        print(f"fewer than {wanted:,} states")
    return (
        states >= wanted
        and not any(report.broken for report in reports)
        and not any(coverage.missing or coverage.unexpected for coverage in coverages)
    )


def check_mutants():
    """Explore every mutant and print which invariant it violates; returns whether all were caught."""
    print("| mutant | violated invariant | after states | in steps |\n|---|---|---:|---:|")
    caught = True
    for mutant in MUTANTS:
        report = mutant.explore()
        caught = caught and report.broken is not None
        invariant = report.broken.args[0] if report.broken else "**SURVIVES**"
        print(f"| {mutant.name} | {invariant} | {report.states:,} | {len(report.path)} |", flush=True)
    return caught


if __name__ == "__main__":
    main()
