"""How PostgreSQL carries out the statements that services really send, by its own log (auto_explain).

with watched(connect, databases):  # connections made from now on are logged
    ...
for one in read(log, offset):  # what the log has had to say since
    one.statement, one.examined, one.read_whole
"""

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from deploy.local.postgres import SUPERUSER

# What there is more of with every customer, product or order; other tables are emptied again, or never full.
GROWING = {
    "users", "refresh_families", "refresh_tokens", "products", "orders", "order_items", "timeline", "reservations",
    "reservation_lines", "stock", "movements", "payments", "notifications", "inbox", "idempotency_keys",
}  # fmt: skip
SETTINGS = {
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_format": "json",
    "auto_explain.log_nested_statements": "on",  # the look-ups of foreign keys
}
# Of what these hold a setting bounds how much there is (MAX_UNDECIDED_ORDERS), or it is what hangs: not what is stored.
BOUNDED = {"ix_orders_undecided", "ix_orders_unsettled"}
FEW = 100  # more rows than this a limit does not let a scan drop
BEGIN = re.compile(r" (\S+)@(\S+) LOG:  duration: [0-9.]+ ms  plan:$")
# Values are in the text, since psycopg2 puts them there. How many they are does not make it another statement.
VALUE = re.compile(r"E?'(?:[^']|'')*'|\b[0-9]+(?:\.[0-9]+)?\b|\$[0-9]+")
CAST = r"\?(?:::\w+(?:\[\])?)?"
VALUES = re.compile(rf"{CAST}(?:, {CAST})*")
PASSED_ON_AT_ONCE = {"LockRows", "Nested Loop", "Result", "Subquery Scan", "ModifyTable"}


@dataclass(frozen=True)
class Executed:
    """One statement that was run in a database, without its values, and its plan."""

    database: str
    statement: str
    plan: dict

    @property
    def examined(self):
        """How many rows of tables were looked at, those that a filter dropped included."""
        return sum(_examined(node) for node, _ in nodes(self.plan) if "Relation Name" in node and not _is_bounded(node))

    @property
    def read_whole(self):
        """The growing tables of which nothing bounds how much is read: neither an index's condition nor a limit."""
        return sorted({node["Relation Name"] for node, above in nodes(self.plan) if _reads_whole(node, above)})


@contextlib.contextmanager
def watched(connect, databases, **settings):
    """Have everything explained that is done in these databases over connections which begin within the block.

    `connect(database)` gives a connection of the superuser; `settings` are further ones for those connections.
    """
    _alter(connect, databases, [f"SET {name} = '{value}'" for name, value in (SETTINGS | settings).items()])
    try:
        yield
    finally:
        _alter(connect, databases, [f"RESET {name}" for name in SETTINGS | settings])


def _alter(connect, databases, changes):
    for database in databases:
        with contextlib.closing(connect(database)) as connection, connection.cursor() as cursor:
            cursor.execute("LOAD 'auto_explain'")  # or nobody knows its settings
            for change in changes:
                cursor.execute(f"ALTER DATABASE {database} {change}")


def read(log, offset=0) -> Iterator[Executed]:
    """Yield what was explained in a server's log after so many bytes, but for what a test or the bench did itself."""
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
    told = json.loads(explained)
    return Executed(database, without_values(told["Query Text"]), told["Plan"])


def without_values(statement):
    """A statement as it was written: `?` for a value, or for several of them in a row."""
    return VALUES.sub("?", VALUE.sub("?", " ".join(statement.split())))


def nodes(plan, above=()):
    """Yield (node, the nodes above it, from the top) for a plan and all its parts."""
    yield plan, above
    for part in plan.get("Plans", ()):
        yield from nodes(part, (*above, plan))


def _examined(node):
    dropped = sum(node.get(f"Rows Removed by {by}", 0) for by in ("Filter", "Index Recheck"))
    return (node.get("Actual Rows", 0) + dropped) * node.get("Actual Loops", 1)


def _reads_whole(node, above):
    if node.get("Relation Name") not in GROWING or not node["Node Type"].endswith("Scan"):
        return False
    if node["Node Type"] == "Seq Scan":
        return True
    if node["Node Type"] in {"Bitmap Heap Scan", "Tid Scan"} or "Index Cond" in node or _is_bounded(node):
        return False
    return not _is_limited(above) or node.get("Rows Removed by Filter", 0) > FEW


def _is_bounded(node):
    """Whether it reads only what one of the partial indexes holds."""
    return any(part.get("Index Name") in BOUNDED for part, _ in nodes(node))


def _is_limited(above):
    """Whether a limit above stops the scan: not where a sort or the like needs all of it first."""
    for node in reversed(above):
        if node["Node Type"] == "Limit":
            return True
        if node["Node Type"] not in PASSED_ON_AT_ONCE:
            return False
    return False
