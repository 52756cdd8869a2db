"""The plans with which PostgreSQL executes the services' statements, read from its log (auto_explain).

with watched(connect, databases):  # statements of new connections are logged
    ...
for executed in read(log, offset):  # what was logged after this offset
    executed.statement, executed.examined, executed.read_whole
"""

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from deploy.local.postgres import SUPERUSER

# Tables that stay small, because handled rows are deleted. All others may grow with customers, products or orders.
SMALL = {"outbox", "dead_letters", "timers", "work_items", "imports", "import_chunks", "import_rows"}
SETTINGS = {
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_format": "json",
    "auto_explain.log_nested_statements": "on",  # the look-ups of foreign keys
}
# The size of these partial indexes does not grow with the stored data: MAX_UNDECIDED_ORDERS limits the first,
# the second contains only unsettled orders, and the third only payments whose refund is not made yet.
BOUNDED = {"ix_orders_undecided", "ix_orders_unsettled", "ix_payments_refund_pending"}
SAMPLE = "Sample Scan"  # TABLESAMPLE: the statement states how much it reads
FEW = 100  # a scan under a LIMIT may discard at most this many rows
BEGIN = re.compile(r" (\S+)@(\S+) LOG:  duration: [0-9.]+ ms  plan:$")
# psycopg2 writes values into the statement. Statements that differ only in values, or in their number, count as one.
VALUE = re.compile(r"E?'(?:[^']|'')*'|\b[0-9]+(?:\.[0-9]+)?\b|\$[0-9]+")
CAST = r"\?(?:::\w+(?:\[\])?)?"
VALUES = re.compile(rf"{CAST}(?:, {CAST})*")
STREAMING_NODES = {"LockRows", "Nested Loop", "Result", "Subquery Scan", "ModifyTable"}


@dataclass(frozen=True)
class Executed:
    """One executed statement, without its values, and its plan."""

    database: str
    statement: str
    plan: dict

    @property
    def examined(self):
        """The number of table rows that were read, including those that a filter dropped."""
        return sum(_examined(node) for node, _ in nodes(self.plan) if "Relation Name" in node and not _is_bounded(node))

    @property
    def read_whole(self):
        """The growing tables that are scanned without an index condition and without a LIMIT."""
        return sorted({node["Relation Name"] for node, above in nodes(self.plan) if _reads_whole(node, above)})


@contextlib.contextmanager
def watched(connect, databases, **settings):
    """Log the plan of every statement in these databases over connections that are opened within the block.

    `connect(database)` returns a connection of the superuser. `settings` are set on the new connections as well.
    """
    _alter(connect, databases, [f"SET {name} = '{value}'" for name, value in (SETTINGS | settings).items()])
    try:
        yield
    finally:
        _alter(connect, databases, [f"RESET {name}" for name in SETTINGS | settings])


def _alter(connect, databases, changes):
    for database in databases:
        with contextlib.closing(connect(database)) as connection, connection.cursor() as cursor:
            cursor.execute("LOAD 'auto_explain'")  # defines its settings
            for change in changes:
                cursor.execute(f"ALTER DATABASE {database} {change}")


def read(log, offset=0) -> Iterator[Executed]:
    """Yield the plans in a server's log after `offset` bytes, except those of the superuser (the test or the bench)."""
    with log.open() as file:
        file.seek(offset)
        database, lines = None, []
        for line in file:
            if line.startswith("\t"):
                lines.append(line)
                continue
            if database:
                yield _executed(database, "".join(lines))
            found, lines = BEGIN.search(line.rstrip()), []
            database = found and found.group(1) != SUPERUSER and found.group(2)
        if database:
            yield _executed(database, "".join(lines))


def _executed(database, explained):
    entry = json.loads(explained)
    return Executed(database, without_values(entry["Query Text"]), entry["Plan"])


def without_values(statement):
    """The statement with `?` in place of a value, or of several values in a row."""
    return VALUES.sub("?", VALUE.sub("?", " ".join(statement.split())))


def nodes(plan, above=()):
    """Yield (node, its ancestors from the top) for a plan and all its parts."""
    yield plan, above
    for part in plan.get("Plans", ()):
        yield from nodes(part, (*above, plan))


def _examined(node):
    dropped = sum(node.get(f"Rows Removed by {by}", 0) for by in ("Filter", "Index Recheck"))
    return (node.get("Actual Rows", 0) + dropped) * node.get("Actual Loops", 1)


def _reads_whole(node, above):
    table = node.get("Relation Name")
    if table is None or table in SMALL or table.startswith("pg_") or not node["Node Type"].endswith("Scan"):
        return False
    if node["Node Type"] == "Seq Scan":
        return True
    if node["Node Type"] == SAMPLE:
        return False
    if node["Node Type"] in {"Bitmap Heap Scan", "Tid Scan"} or "Index Cond" in node or _is_bounded(node):
        return False
    return not _is_limited(above) or node.get("Rows Removed by Filter", 0) > FEW


def _is_bounded(node):
    """Whether the node reads only the rows of a bounded partial index."""
    return any(part.get("Index Name") in BOUNDED for part, _ in nodes(node))


def _is_limited(above):
    """Whether a LIMIT above stops the scan. It does not if a node between them, such as a sort, needs all rows."""
    for node in reversed(above):
        if node["Node Type"] == "Limit":
            return True
        if node["Node Type"] not in STREAMING_NODES:
            return False
    return False
