"""The result of a run as a table, as text and as JSON."""

import json
import time


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
    return "\n".join(lines) + "\n"


def failure(outcome, folder):
    """Return the problems of a failed run, with the orders concerned and the folders of the logs."""
    lines = [f"NOT SOUND, seed {outcome.seed}", *(f"- {problem}" for problem in outcome.problems)]
    lines += [f"- {name}: {', '.join(ids[:8])}" for name, ids in outcome.checks.items() if ids]
    lines += outcome.histories
    lines.append(f"logs: {folder / 'log'}, {folder / 'second/log'}, {folder / 'provider'}")
    return "\n".join(lines)


def append(path, table):
    """Add the table to the file."""
    with path.open("a") as file:
        file.write(table + "\n")


def write_json(path, outcome, sale):
    """Write the complete result as JSON."""
    facts = {
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
        "hot_product": [vars(one) for one in sale],
        "journal": [vars(one) for one in outcome.journal],
    }
    path.write_text(json.dumps(facts, indent=1, default=str))
