"""The tables of docs/reliability.md, between their markers."""

import re
from pathlib import Path

DOCS = Path(__file__).parent.parent.parent / "docs/reliability.md"
HEAD = "| | what could go wrong | remedy | where | fails without it | fails after |\n|---|---|---|---|---|---|\n"


def _markers(module):
    name = module.__name__.rpartition(".")[2]
    return f"<!-- remedies:begin {name} -->\n", f"<!-- remedies:end {name} -->"


def render_table(module, results):
    """Return the table of a module's remedies. `results` maps (against, what) to the outcome of the test without it."""
    rows, last = [], None
    for remedy in module.REMEDIES:
        title = "" if remedy.against == last else module.TITLES[remedy.against]
        number = "" if remedy.against == last else remedy.against
        where = ", ".join(f"`{file}`" for file in remedy.files)
        outcome = results.get((remedy.against, remedy.what), "")
        rows.append(f"| {number} | {title} | {remedy.what} | {where} | `{remedy.test}` | {outcome} |\n")
        last = remedy.against
    return HEAD + "".join(rows)


def table_in_docs(module):
    """Return the table in the docs."""
    begin, end = _markers(module)
    return DOCS.read_text().partition(begin)[2].partition(end)[0]


def put_into_docs(module, results):
    """Write the table into the docs. Outcomes that `results` does not contain are kept."""
    old = outcomes(table_in_docs(module))
    begin, end = _markers(module)
    text = DOCS.read_text()
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    DOCS.write_text(before + begin + render_table(module, old | results) + end + after)


def without_times(table):
    """Return the rows without their last column."""
    return [re.sub(r"[^|]*\|$", "", line) for line in table.splitlines()]


def outcomes(table):
    """Return the last column of a table, by (against, what)."""
    found, against = {}, ""
    for line in table.splitlines()[2:]:
        number, _, what, *_, outcome = (cell.strip() for cell in line.strip("|").split("|"))
        against = number or against
        found[against, what] = outcome
    return found
