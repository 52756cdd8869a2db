"""Finds statements whose cost grows with the stored data: `python -m qa.bench --only plans`.

The suite makes the same calls on the databases of a small shop, and on those of a large one with twenty times the
customers, products and orders (also open ones). PostgreSQL logs every statement with its plan and the rows it read
(qa/support/query_plans.py). A statement grows if it reads more rows in the large shop, or reads a growing table
completely.
"""

import contextlib
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from contracts.ids import new_id
from qa.bench.orders import generate, order_requests
from qa.bench.paths import walk
from qa.bench.shop import PASSWORD, Shop
from qa.bench.stored import SERVICES, Stored
from qa.support.client import ADMIN, Client, log_in
from qa.support.query_plans import read, watched
from users.token_issuer import issue, load_signing_keys

TIMES = 20
SLACK = 3  # batch sizes vary; a statement that grows reads twenty times as many rows
FEW_ROWS = 20
DEADLINE_SECONDS = 3600  # open orders must not expire
TIMERS_SECONDS = 3.0
OPEN = """
    UPDATE orders SET status = 'CREATED', stock_status = 'RESERVED', payment_status = 'PENDING', cancel_reason = NULL,
                      deadline_at = now() + interval '3590 s'
    WHERE id IN (SELECT id FROM orders ORDER BY id DESC LIMIT %(open)s)
"""


@dataclass(frozen=True)
class Sizes:
    """The sizes of the small shop; the large one has TIMES as many of everything."""

    orders: int = 5_000
    customers: int = 1_000
    products: int = 500
    open: int = 15
    seconds: float = 8.0
    rate: float = 10.0


TINY = Sizes(orders=1_000, customers=200, open=5, seconds=2.0)


@dataclass(frozen=True)
class Statement:
    """One statement of a service, and the median number of rows that it read in each shop."""

    service: str
    text: str
    rows: float
    rows_in_large: float
    read_whole: tuple

    @property
    def grows(self):
        """Whether it reads more rows in the large shop."""
        return bool(self.read_whole) or self.rows_in_large > SLACK * max(self.rows, FEW_ROWS)


def measure(bench_servers, sizes, say):
    """Return the statements that the services sent in both shops."""
    small = _statements(bench_servers, sizes, 1, say)
    large = _statements(bench_servers, sizes, TIMES, say)
    return [
        Statement(
            *key,
            statistics.median(one.examined for one in small[key]),
            statistics.median(one.examined for one in large[key]),
            tuple(sorted({table for one in large[key] for table in one.read_whole})),
        )
        for key in sorted(small.keys() & large.keys())
    ]


def _statements(bench_servers, sizes, times, say):
    """Run a shop of that size; returns the executed statements by (service, statement)."""
    name = f"plans_{times}"
    urls = bench_servers.databases_for(name, SERVICES)
    try:
        stored = _load(bench_servers, name, sizes, times)
        found = defaultdict(list)
        log = bench_servers.servers.postgres.log
        offset = log.stat().st_size
        with watched(bench_servers.superuser, [f"{name}_{service}" for service in SERVICES]):
            more = {"ORDER_DEADLINE_SECONDS": str(DEADLINE_SECONDS)}
            with Shop(bench_servers.with_databases(urls), more=more) as shop:
                headers = {"Authorization": f"Bearer {shop.token}"}
                generate(shop.address, order_requests(shop.product_ids, headers), sizes.seconds, rate=sizes.rate)
                _call_all_operations(shop, stored)
                time.sleep(TIMERS_SECONDS)  # for timers that run every second
    finally:
        bench_servers.drop_databases(urls)
    for one in read(log, offset):
        if one.database.startswith(f"{name}_"):
            found[one.database.removeprefix(f"{name}_"), one.statement].append(one)
    say(f"  {sizes.orders * times:,} orders: {sum(map(len, found.values())):,} runs of {len(found)} statements")
    return found


def _load(bench_servers, name, sizes, times):
    stored = Stored(
        lambda service: bench_servers.superuser(f"{name}_{service}"), sizes.products * times, sizes.customers * times
    )
    stored.load(sizes.orders * times, with_recent=True)
    with contextlib.closing(stored.connect("orders")) as connection, connection.cursor() as cursor:
        cursor.execute(OPEN, {"open": sizes.open * times})
        cursor.execute("VACUUM ANALYZE orders")
    return stored


def _call_all_operations(shop, stored):
    url = f"http://{shop.address}"
    with contextlib.closing(stored.connect("orders")) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id, created_at, user_id FROM orders WHERE status = 'DELIVERED' ORDER BY id LIMIT 1")
        *order, user_id = cursor.fetchone()
    key = load_signing_keys(Path(shop.bench_servers.environment["JWT_PRIVATE_KEY_FILE"]))[0]
    token = issue(key, user_id=user_id, roles=["customer"], issued_at=datetime.now(UTC), token_id=new_id())
    customer, admin = Client(url, token), log_in(url, ADMIN, PASSWORD)
    product = admin.must("GET", f"/products/{shop.product_ids[0]}")
    walk(url, customer, admin, order, product)
    customer.close()
    admin.close()
