"""The long form, for a person at a terminal: python -m qa.model --states 1000000, or --mutants for their table."""

import argparse
import resource
import sys
import time

from qa.model.explorer import explore
from qa.model.mutants import MUTANTS
from qa.model.scenarios import INBOX, LONG
from qa.model.tables import TABLES, Coverage


def main():
    """Explore, print, and exit with 1 if anything is broken, never seen, too few, or survives."""
    parser = argparse.ArgumentParser(prog="python -m qa.model", description=__doc__)
    parser.add_argument("--states", type=int, default=1_000_000, help="fail unless so many distinct states are visited")
    parser.add_argument("--mutants", action="store_true", help="hunt the mutants instead, and print their table")
    arguments = parser.parse_args()
    sys.exit(not (hunt() if arguments.mutants else visit(arguments.states)))


def visit(wanted):
    """Explore the long form's worlds to their ends; tells whether every promise is kept and every row was seen."""
    began, reports = time.monotonic(), []
    for scenario in (*LONG, *INBOX):
        report = explore(scenario)
        reports.append(report)
        print(report if scenario in LONG else f"{report} (not counted)", flush=True)
        if report.broken:
            print(report.story)
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
        and not any(coverage.never or coverage.wrong for coverage in coverages)
    )


def hunt():
    """Hunt every mutant and print what became of it; tells whether all were caught."""
    print("| mutant | caught by: the promise that breaks | after states | in steps |\n|---|---|---:|---:|")
    caught = True
    for mutant in MUTANTS:
        report = mutant.hunt()
        caught = caught and report.broken is not None
        promise = report.broken.args[0] if report.broken else "**SURVIVES**"
        print(f"| {mutant.name} | {promise} | {report.states:,} | {len(report.path)} |", flush=True)
    return caught


if __name__ == "__main__":
    main()
