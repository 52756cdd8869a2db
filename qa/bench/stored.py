"""Orders that ended long ago, loaded by SQL: millions in minutes, with the rows that the suite itself would have left.

All of it follows from an order's number, so that the databases agree without asking each other (stored.sql). What
messaging forgets after two days (inbox, idempotency keys) such orders no longer have.
"""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

SQL = Path(__file__).with_suffix(".sql")
SERVICES = ("orders", "inventory", "notifications", "payments", "users", "catalog")
PARTS = ("orders: timeline", *SERVICES)  # each over a connection of its own; what takes longest goes first
STOCK = 100_000_000
MS_APART = 10_000
MOST = 3_000_000  # orders fit in before now
CHUNK = 20_000  # orders a statement: what is sorted then fits in memory


@dataclass
class Stored:
    """What is loaded into one set of databases. `connect(service)` gives a connection of the server's superuser."""

    connect: object
    products: int = 1_000  # of which every twenty make ten pairs
    customers: int = 50_000
    orders: int = 0
    base: int = field(default_factory=lambda: int(time.time() * 1000) - MOST * MS_APART)

    def load(self, orders, *, with_recent=False):
        """Load more of them, until there are so many; returns the seconds that it took.

        With what is forgotten after some time, too: as many messages in each database, and a session a customer.
        """
        began = time.monotonic()
        with ThreadPoolExecutor(2) as pool:  # a machine has that many cores
            list(pool.map(lambda part: self._load(part, orders), PARTS))
            if with_recent:
                list(pool.map(lambda service: self._load_recent(service, orders), SERVICES))
            list(pool.map(self._tidy_up, SERVICES))
        self.orders = orders
        return time.monotonic() - began

    def _load(self, part, orders):
        said = dict(_statements())
        with contextlib.closing(self.connect(part.partition(":")[0])) as connection, connection.cursor() as cursor:
            cursor.execute(said["functions"])
            if not self.orders:
                self._run(cursor, said, f"{part}, once")
            for first in range(self.orders, orders, CHUNK):
                self._run(cursor, said, part, first=first, last=min(first + CHUNK, orders))
            self._run(cursor, said, f"{part}, at last")

    def _load_recent(self, service, orders):
        said = dict(_statements())
        with contextlib.closing(self.connect(service)) as connection, connection.cursor() as cursor:
            self._run(cursor, said, "messages", first=self.orders, last=orders)
            if service == "users":
                self._run(cursor, said, "sessions")

    def _tidy_up(self, service):
        """Do what autovacuum would do while something is measured."""
        with contextlib.closing(self.connect(service)) as connection, connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")
            cursor.execute("CHECKPOINT")

    def _run(self, cursor, said, name, first=0, last=0):
        numbers = {"products": self.products, "pairs": self.products // 2, "customers": self.customers}
        numbers |= {"first": first, "last": last, "base": self.base, "apart": MS_APART, "stock": STOCK}
        orders = Template(said["orders in numbers"]).substitute(numbers)
        for statement in said.get(name, "").split(";"):
            if statement.strip():
                cursor.execute(Template(statement).substitute(numbers, orders=f"({orders}) AS o"))


def _statements():
    """Yield (name, SQL) of each part of stored.sql: a part begins with `-- [name]`."""
    for part in SQL.read_text().split("-- [")[1:]:
        name, _, text = part.partition("]\n")
        yield name, text
