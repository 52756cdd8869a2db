"""The result of a run as tables, as text and as JSON."""

import json
import time
from collections import defaultdict

from qa.chaos.isolation import limits


def markdown(outcome):
    """Return the result as Markdown tables, as in docs/reliability.md."""
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(outcome.began))
    missed = sum(one.missed for one in outcome.journal)
    rows = [
        ("date (UTC)", when),
        ("seed", outcome.seed),
        ("duration", f"{outcome.seconds / 60:.1f} minutes, {len(outcome.recoveries)} rounds"),
        ("orders accepted", outcome.orders),
        ("commands acknowledged", ", ".join(f"{count} {name}" for name, count in sorted(outcome.commands.items()))),
        ("faults", f"{outcome.injected.total()} of {len(outcome.injected)} kinds ({missed} had no effect)"),
        ("longest until every order was decided", f"{max(outcome.recoveries, default=0):.1f} s after the last fault"),
        ("responses", ", ".join(f"{count} x {status}" for status, count in sorted(outcome.responses.items()))),
        ("not possible on this machine", ", ".join(outcome.not_staged) or "none"),
        ("verdict", "sound" if outcome.sound else "NOT SOUND"),
    ]
    lines = ["| run | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows), ""]
    lines += ["| fault | times |", "|---|---:|"]
    lines += [f"| {kind} | {count} |" for kind, count in sorted(outcome.injected.items())]
    lines += ["", "| invariant | broken |", "|---|---:|"]
    lines += [f"| {name} | {len(ids)} |" for name, ids in outcome.checks.items()]
    if outcome.isolation is not None:
        lines += ["", *_isolation(outcome.isolation)]
    return "\n".join(lines) + "\n"


def _isolation(isolation):
    """The normal p99 of each probe, and of each kind of fault the probe that was closest to its limit."""
    lines = [
        f"| unaffected probe | normal p99 (last round) | limit, at least {_ms(isolation.least)} |",
        "|---|---:|---:|",
    ]
    limit = limits(isolation.normal, isolation.least, isolation.factor)
    lines += [f"| {name} | {_ms(seconds)} | {_ms(limit[name])} |" for name, seconds in isolation.normal.items()]
    lines += [f"| not judged: {reason} | | |" for reason in isolation.not_judged]
    lines += ["", "| slow fault | unaffected samples | slow or failed | worst probe | its p99 | its limit |"]
    lines += ["|---|---:|---:|---|---:|---:|"]
    by_kind = defaultdict(list)
    for one in isolation.kinds:
        by_kind[one.kind].append(one)
    for kind, found in sorted(by_kind.items()):
        worst = max(found, key=lambda one: (one.is_violated, one.bad, one.p99 / one.limit))
        cells = (kind, sum(one.samples for one in found), sum(one.bad for one in found), worst.probe)
        mark = " VIOLATED" if worst.is_violated else ""
        lines.append(f"| {' | '.join(map(str, cells))} | {_ms(worst.p99)}{mark} | {_ms(worst.limit)} |")
    return lines


def _ms(seconds):
    return f"{1000 * seconds:.0f} ms"


def failure(outcome, folder):
    """Return the problems of a failed run, with the orders concerned and the folders of the logs."""
    lines = [f"NOT SOUND, seed {outcome.seed}", *(f"- {problem}" for problem in outcome.problems)]
    lines += [f"- {name}: {', '.join(ids[:8])}" for name, ids in outcome.checks.items() if ids]
    if outcome.isolation is not None:
        lines += [f"- {one}" for one in (*outcome.isolation.problems, *outcome.isolation.violations)]
    lines += outcome.histories
    lines.append(f"logs: {folder / 'log'}, {folder / 'second/log'}, {folder / 'provider'}")
    return "\n".join(lines)


def append(path, table):
    """Add the table to the file."""
    with path.open("a") as file:
        file.write(table + "\n")


def told_table(told):
    """Return what the customers and administrators were told in the whole run, as a Markdown table."""
    return "\n".join(["| received | |", "|---|---|", *(f"| {name} | {text} |" for name, text in told.items())]) + "\n"


def write_json(path, outcomes, told, sale, slowness):
    """Write the complete result as JSON: {"crash": ..., "slow": ..., "told": ..., "hot_product": ..., "slowness": ...}.

    Parts that did not run are null. `slowness`: how many times slower than a fast machine this one was.
    """
    parts = {name: _facts(outcome) if outcome else None for name, outcome in outcomes.items()}
    parts |= {"told": told, "hot_product": [vars(one) for one in sale], "slowness": slowness}
    path.write_text(json.dumps(parts, indent=1, default=str))


def _facts(outcome):
    isolation = outcome.isolation
    return {
        "seed": outcome.seed,
        "began": outcome.began,
        "seconds": outcome.seconds,
        "orders": outcome.orders,
        "sound": outcome.sound,
        "faults": dict(outcome.injected),
        "checks": outcome.checks,
        "recoveries": outcome.recoveries,
        "responses": dict(outcome.responses),
        "commands": dict(outcome.commands),
        "problems": outcome.problems,
        "not_staged": outcome.not_staged,
        "histories": outcome.histories,
        "journal": [vars(one) for one in outcome.journal],
        "violations": isolation.violations if isolation else [],
        "findings": [vars(one) for one in isolation.findings] if isolation else [],
    }
