"""Loads old, finished orders by SQL: millions in minutes, with the same rows that the suite would have written.

All values are computed from an order's number, so the databases are consistent with each other (stored.sql). Old orders
have no rows in tables that are cleaned up after two days (inbox, idempotency keys).
"""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from contracts.services import SERVICES

SQL = Path(__file__).with_suffix(".sql")
# Each over its own connection, the slowest first.
PARTS = ("orders: timeline", "orders", *(service for service in SERVICES if service != "orders"))
STOCK = 100_000_000
MS_APART = 10_000
MOST = 3_000_000  # orders, MS_APART apart, end before now
CHUNK = 20_000  # orders per statement, so that sorts fit in memory


@dataclass
class Stored:
    """The orders loaded into one set of databases. `connect(service)` returns a superuser's connection."""

    connect: object
    products: int = 1_000  # every twenty of them make ten pairs
    customers: int = 50_000
    orders: int = 0
    base: int = field(default_factory=lambda: int(time.time() * 1000) - MOST * MS_APART)

    def load(self, orders, *, with_recent=False):
        """Load orders until there are so many; returns the seconds that this took.

        `with_recent` also fills the tables that are cleaned up: inbox and keys for each order, a session per customer.
        """
        began = time.monotonic()
        with ThreadPoolExecutor(2) as pool:  # a machine has that many cores
            list(pool.map(lambda part: self._load(part, orders), PARTS))
            if with_recent:
                list(pool.map(lambda service: self._load_recent(service, orders), SERVICES))
            list(pool.map(self._vacuum, SERVICES))
        self.orders = orders
        return time.monotonic() - began

    def _load(self, part, orders):
        sections = dict(_statements())
        with contextlib.closing(self.connect(part.partition(":")[0])) as connection, connection.cursor() as cursor:
            cursor.execute(sections["functions"])
            if not self.orders:
                self._run(cursor, sections, f"{part}, once")
            for first in range(self.orders, orders, CHUNK):
                self._run(cursor, sections, part, first=first, last=min(first + CHUNK, orders))
            self._run(cursor, sections, f"{part}, at last")

    def _load_recent(self, service, orders):
        sections = dict(_statements())
        with contextlib.closing(self.connect(service)) as connection, connection.cursor() as cursor:
            self._run(cursor, sections, "messages", first=self.orders, last=orders)
            if service == "users":
                self._run(cursor, sections, "sessions")

    def _vacuum(self, service):
        """Vacuum and checkpoint now, so that PostgreSQL does not do it during the measurement."""
        with contextlib.closing(self.connect(service)) as connection, connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")
            cursor.execute("CHECKPOINT")

    def _run(self, cursor, sections, name, first=0, last=0):
        numbers = {"products": self.products, "pairs": self.products // 2, "customers": self.customers}
        numbers |= {"first": first, "last": last, "base": self.base, "apart": MS_APART, "stock": STOCK}
        orders = Template(sections["orders in numbers"]).substitute(numbers)
        for statement in sections.get(name, "").split(";"):
            if statement.strip():
                cursor.execute(Template(statement).substitute(numbers, orders=f"({orders}) AS o"))


def _statements():
    """Yield (name, SQL) of each part of stored.sql: a part begins with `-- [name]`."""
    for part in SQL.read_text().split("-- [")[1:]:
        name, _, text = part.partition("]\n")
        yield name, text
