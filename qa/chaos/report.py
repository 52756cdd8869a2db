"""The result of a run, for a person and for docs/reliability.md."""

import json
import time


def markdown(outcome):
    """The result as a table."""
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(outcome.began))
    missed = sum(one.missed for one in outcome.journal)
    rows = [
        ("date (UTC)", when),
        ("seed", outcome.seed),
        ("duration", f"{outcome.seconds / 60:.1f} minutes, {len(outcome.recoveries)} rounds"),
        ("orders accepted", outcome.orders),
        ("commands acknowledged", ", ".join(f"{count} {name}" for name, count in sorted(outcome.commands.items()))),
        ("faults", f"{outcome.struck.total()} of {len(outcome.struck)} kinds ({missed} found nothing to strike)"),
        ("longest until every order was decided", f"{max(outcome.recoveries, default=0):.1f} s after the last healing"),
        ("answers", ", ".join(f"{count} x {status}" for status, count in sorted(outcome.answers.items()))),
        ("not staged on this machine", ", ".join(outcome.not_staged) or "none"),
        ("verdict", "sound" if outcome.sound else "NOT SOUND"),
    ]
    lines = ["| run | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows), ""]
    lines += ["| fault | times |", "|---|---:|"]
    lines += [f"| {kind} | {count} |" for kind, count in sorted(outcome.struck.items())]
    lines += ["", "| invariant | broken |", "|---|---:|"]
    lines += [f"| {name} | {len(ids)} |" for name, ids in outcome.checks.items()]
    return "\n".join(lines) + "\n"


def failure(outcome, folder):
    """What a person needs to look into it."""
    told = [f"NOT SOUND, seed {outcome.seed}", *(f"- {problem}" for problem in outcome.problems)]
    told += [f"- {name}: {', '.join(ids[:8])}" for name, ids in outcome.checks.items() if ids]
    told += outcome.stories
    told.append(f"logs: {folder / 'log'}, {folder / 'second/log'}, {folder / 'provider'}")
    return "\n".join(told)


def append(path, table):
    """Add the table to the file."""
    with path.open("a") as file:
        file.write(table + "\n")


def write_json(path, outcome, sale):
    """Everything, for a program."""
    facts = {
        "seed": outcome.seed,
        "began": outcome.began,
        "seconds": outcome.seconds,
        "orders": outcome.orders,
        "sound": outcome.sound,
        "faults": dict(outcome.struck),
        "checks": outcome.checks,
        "recoveries": outcome.recoveries,
        "answers": dict(outcome.answers),
        "commands": dict(outcome.commands),
        "problems": outcome.problems,
        "not_staged": outcome.not_staged,
        "stories": outcome.stories,
        "hot_product": [vars(one) for one in sale],
        "journal": [vars(one) for one in outcome.journal],
    }
    path.write_text(json.dumps(facts, indent=1, default=str))
