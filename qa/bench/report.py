"""The benchmark's results: text for the terminal, docs/performance.md between its markers, and JSON for comparisons."""

import json
import os
import platform
import statistics
import subprocess
import time
from dataclasses import asdict
from pathlib import Path

from deploy.local.suite import ROOT
from qa.bench.goals import figures, judge, number

DOCS = ROOT / "docs/performance.md"
BEGIN, END = "<!-- bench:begin -->\n", "<!-- bench:end -->"
FLOOR = "floor behind HTTP"
CLAIM_ROUNDS = 5
SHOWN = 200  # characters of a statement
LISTS = ("rounds", "cpu", "load_averages", "problems", "turns")
SINGLE = ("sweep", "long_run", "plans", "memory")
NOTEWORTHY = 0.05  # a comparison does not list smaller differences of medians


class Incomparable(Exception):
    """The existing result is missing, or is of other code or lengths, so this run cannot be added to it."""


def machine():
    """Describe this machine."""
    cpu = next((line for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ": unknown")
    memory = next((line for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), ": 0 kB")
    return {
        "processor": cpu.partition(":")[2].strip(),
        "cores": os.cpu_count(),
        "memory": f"{int(memory.split()[1]) / 2**20:.0f} GiB",
        "python": platform.python_version(),
        "kernel": platform.release().partition("-")[0],
    }


def facts(measured, options, began):
    """Return the complete result, for JSON."""
    return {
        "began": time.strftime("%Y-%m-%d %H:%M", time.gmtime(began)),
        "seconds": time.time() - began,
        "commit": _commit(),
        "machine": machine(),
        "options": options,
        **asdict(measured),
    }


def earlier(path, options):
    """Return the existing result, to which a run with these options can be added. Raises Incomparable."""
    found = json.loads(path.read_text()) if path.exists() else None
    if found is None or found["commit"] != _commit():
        message = f"--add: {path} has no result of {_commit()}" + (f", but one of {found['commit']}" if found else "")
        raise Incomparable(message)
    if any(found["options"][length] != options[length] for length in ("quick", "tiny")):
        message = f"--add: the rounds of {path} have other lengths"
        raise Incomparable(message)
    return found


def combine(first, second):
    """Combine two results: the rounds of both count."""
    lists = {name: first[name] + second[name] for name in LISTS}
    single = {name: second[name] or first[name] for name in SINGLE}
    return second | lists | single | {"began": first["began"], "seconds": first["seconds"] + second["seconds"]}


def write_json(path, found):
    """Write the result; the previous one is kept as old.json."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        path.replace(path.with_name("old.json"))
    path.write_text(json.dumps(found, indent=1))


def terminal(found):
    """Return the result as text for a terminal."""
    lines = [_where(found), "", *(f"  FAILED: {problem}" for problem in found["problems"])]
    for goal, value, verdict in judge(_all(found)):
        lines.append(f"  {verdict:<13}{goal.what}: {value or '-'} (goal {goal.text})")
    lines.append("")
    lines += [f"  {name}: {value}" for name, value in figures(_all(found)).items()]
    lines.append("")
    for what, shares in _cpu(found["cpu"]).items():
        lines.append(f"  processor ms an order, {what}: {_shares(shares)}")
    lines.append(f"  {_against_floor(found['cpu'])}")
    lines += [f"  {line}" for line in _plans(found.get("plans")) + _memory(found.get("memory"))]
    return "\n".join(lines)


def markdown(found):
    """Return the result for docs/performance.md."""
    lines = [_where(found), "", *(f"**Failed: {problem.splitlines()[0]}**\n" for problem in found["problems"])]
    if len(found["rounds"]) < CLAIM_ROUNDS:
        lines += [f"**A quick look, not a claim: fewer than {CLAIM_ROUNDS} rounds.**", ""]
    lines += ["| goal | bound | measured | |", "|---|---|---|---|"]
    lines += [
        f"| {goal.what} | {goal.text} | {value or '-'} | {verdict} |" for goal, value, verdict in judge(_all(found))
    ]
    lines += ["", "| figure | median (least to most) |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in figures(_all(found)).items()]
    lines += ["", "Processor milliseconds an order, all processes of a kind together:", ""]
    lines += [f"- {what}: {_shares(shares)}" for what, shares in _cpu(found["cpu"]).items()]
    lines += ["", _against_floor(found["cpu"]), ""]
    lines += _long_run(found["long_run"])
    lines += _plans(found.get("plans"))
    lines += _memory(found.get("memory"))
    if found["sweep"]:
        lines += ["![Throughput and latency over the offered load](performance.svg)", ""]
    return "\n".join(lines)


def put_into_docs(found):
    """Write the result between the markers of docs/performance.md."""
    before, _, rest = DOCS.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCS.write_text(f"{before}{BEGIN}\n{markdown(found)}{END}{after}")


def compare(old, new):
    """Yield a line for every goal, and for every figure with a notable change. Compare results of one machine only."""
    before, after = figures(_all(old)), figures(_all(new))
    yield f"against {old['commit']} of {old['began']}:"
    for (goal, was, _), (_, now, _) in zip(judge(_all(old)), judge(_all(new)), strict=True):
        if was and now:
            yield f"  {_change(was.median, now.median)}  {goal.what}: {number(was.median)} -> {number(now.median)}"
    for name in before.keys() & after.keys():
        was, now = before[name].median, after[name].median
        if was and abs(now / was - 1) >= NOTEWORTHY:
            yield f"  {_change(was, now)}  {name}: {before[name]} -> {after[name]}"


def _all(found):
    """Return the rounds and the turns of the parts after them. Older results have no turns."""
    return found["rounds"] + found.get("turns", [])


def _change(was, now):
    return f"{now / was - 1:>+7.0%}" if was else "      -"


def _where(found):
    machine = found["machine"]
    load = ", ".join(f"{one:.1f}" for one in found["load_averages"])
    return (
        f"{found['began']} UTC, commit {found['commit']}, {len(found['rounds'])} round(s) in "
        f"{found['seconds'] / 60:.0f} minutes; {machine['cores']} cores ({machine['processor']}), {machine['memory']}, "
        f"Python {machine['python']}; load average before each round: {load}."
    )


def _cpu(rounds):
    """Return the medians over the rounds, largest first: {what: {process: ms}}."""
    text = {}
    for what in dict.fromkeys(what for one in rounds for what in one):
        names = dict.fromkeys(name for one in rounds for name in one.get(what, {}))
        medians = {name: statistics.median(one[what][name] for one in rounds if what in one) for name in names}
        text[what] = dict(sorted(medians.items(), key=lambda pair: -pair[1]))
    return text


def _against_floor(rounds):
    """Compare the processor time, which depends least on other load on the machine."""
    totals = {what: sum(shares.values()) for what, shares in _cpu(rounds).items()}
    floor = totals.pop(FLOOR, 0.0)
    if not floor:
        return f"Without the {FLOOR} there is nothing to compare the processor time with."
    text = ", ".join(f"{what} {total / floor:.2g} times" for what, total in totals.items())
    return f"Processor time an order takes, against the {FLOOR}: {text}."


def _shares(shares):
    total = sum(shares.values())
    parts = [f"{name} {ms:.2f} ({ms / total:.0%})" for name, ms in shares.items() if ms >= 0.005]
    return f"{total:.1f} in all: {', '.join(parts)}"


def _long_run(run):
    if not run:
        return []
    growth = ", ".join(f"{service} {slope:+.1f}" for service, slope in run["MiB an hour"].items())
    text = (
        f"{run['seconds'] / 60:.0f} minutes at {run['offered/s']:.0f} orders a second: {run['orders']} orders settled, "
        f"{run['refused']} refused, settle p99.9 {run['settle p99.9 ms']:.0f} ms. "
        f"Memory grew by, in MiB an hour: {growth}."
    )
    return [text, ""]


def _plans(statements):
    """List the statements that read more rows in a larger shop."""
    text = []
    for one in statements or ():
        if one["grows"]:
            whole = f", reads {', '.join(one['read_whole'])} whole" if one["read_whole"] else ""
            rows = f"{one['rows']:g} rows, and {one['rows_in_large']:g} in the large one"
            text.append(f"- {one['service']}: {rows}{whole}: `{_shortened(one['text'])}`")
    return ["Statements that look at more rows in a larger shop:", "", *text, ""] if text else []


def _shortened(statement):
    """Return the beginning of a statement; of a SELECT, from its FROM clause on."""
    verb, _, rest = statement.partition(" ")
    return f"{verb} ... FROM {rest.partition(' FROM ')[2]}"[:SHOWN] if verb == "SELECT" else statement[:SHOWN]


def _memory(run):
    if not run:
        return []
    text = (
        f"Memory was looked at for {run['seconds'] / 60:.0f} minutes at {run['orders/s']:g} orders and "
        f"{run['reads/s']:g} reads a second: {run['orders']} orders settled, {run['reads']} reads, "
        f"{run['refused']} refused. The slopes are those of the second half; MiB at the beginning and at the end: "
    )
    levels = (f"{service} {first:.1f} and {last:.1f}" for service, (first, last) in run["levels"].items())
    return [text + ", ".join(levels) + ".", ""]


def _commit():
    """Return the last commit that changed more than documents, with `-dirty` if there are uncommitted changes."""
    code = ["--", ".", ":!docs", ":!*.md"]
    commit = _git("log", "-1", "--format=%h", *code)
    return f"{commit}-dirty" if _git("status", "--porcelain", *code) else commit or "unknown"


def _git(*command):
    return subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def _lines(path):
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
