"""How the statements of the hot paths grow: `python -m qa.bench --only plans`.

The suite runs on a small shop's databases and on one's with twenty times the customers, products and orders, open ones
included, and does the same on both. PostgreSQL logs every statement with its plan and the rows that it looked at
(qa/support/query_plans.py). A statement grows when it looks at more rows in the large shop, or reads a growing table
whole there.
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
from users.tokens import issue, load_signing_keys

TIMES = 20
SLACK = 3  # batches are not the same each time; what grows with the shop looks at twenty times as many rows
FEW_ROWS = 20
DEADLINE_SECONDS = 3600  # the open orders must not be cancelled for being late
SETTLE_SECONDS = 3.0
OPEN = """
    UPDATE orders SET status = 'CREATED', stock_status = 'RESERVED', payment_status = 'PENDING', cancel_reason = NULL,
                      deadline_at = now() + interval '3590 s'
    WHERE id IN (SELECT id FROM orders ORDER BY id DESC LIMIT %(open)s)
"""


@dataclass(frozen=True)
class Sizes:
    """The small shop; the large one has TIMES as many of everything."""

    orders: int = 5_000
    customers: int = 1_000
    products: int = 500
    open: int = 15
    seconds: float = 8.0
    rate: float = 10.0


TINY = Sizes(orders=1_000, customers=200, open=5, seconds=2.0)


@dataclass(frozen=True)
class Statement:
    """What one statement of a service looked at, as the median of its runs in each shop."""

    service: str
    text: str
    rows: float
    rows_in_large: float
    read_whole: tuple

    @property
    def grows(self):
        """Whether it looks at more rows in a larger shop."""
        return bool(self.read_whole) or self.rows_in_large > SLACK * max(self.rows, FEW_ROWS)


def measure(ground, sizes, say):
    """Return every statement that both shops' services sent."""
    small = _statements(ground, sizes, 1, say)
    large = _statements(ground, sizes, TIMES, say)
    return [
        Statement(
            *key,
            statistics.median(one.examined for one in small[key]),
            statistics.median(one.examined for one in large[key]),
            tuple(sorted({table for one in large[key] for table in one.read_whole})),
        )
        for key in sorted(small.keys() & large.keys())
    ]


def _statements(ground, sizes, times, say):
    """Run a shop of that size; returns what was executed by (service, statement)."""
    name = f"plans_{times}"
    urls = ground.databases_for(name, SERVICES)
    try:
        stored = _load(ground, name, sizes, times)
        found = defaultdict(list)
        log = ground.servers.postgres.log
        offset = log.stat().st_size
        with watched(ground.superuser, [f"{name}_{service}" for service in SERVICES]):
            more = {"ORDER_DEADLINE_SECONDS": str(DEADLINE_SECONDS)}
            with Shop(ground.with_databases(urls), more=more) as shop:
                headers = {"Authorization": f"Bearer {shop.token}"}
                generate(shop.address, order_requests(shop.product_ids, headers), sizes.seconds, rate=sizes.rate)
                _ask_for_everything(shop, stored)
                time.sleep(SETTLE_SECONDS)  # for what timers do every second
    finally:
        ground.drop_databases(urls)
    for one in read(log, offset):
        if one.database.startswith(f"{name}_"):
            found[one.database.removeprefix(f"{name}_"), one.statement].append(one)
    say(f"  {sizes.orders * times:,} orders: {sum(map(len, found.values())):,} runs of {len(found)} statements")
    return found


def _load(ground, name, sizes, times):
    stored = Stored(
        lambda service: ground.superuser(f"{name}_{service}"), sizes.products * times, sizes.customers * times
    )
    stored.load(sizes.orders * times, with_recent=True)
    with contextlib.closing(stored.connect("orders")) as connection, connection.cursor() as cursor:
        cursor.execute(OPEN, {"open": sizes.open * times})
        cursor.execute("VACUUM ANALYZE orders")
    return stored


def _ask_for_everything(shop, stored):
    url = f"http://{shop.address}"
    with contextlib.closing(stored.connect("orders")) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id, created_at, user_id FROM orders WHERE status = 'DELIVERED' ORDER BY id LIMIT 1")
        *order, user_id = cursor.fetchone()
    key = load_signing_keys(Path(shop.ground.environment["JWT_PRIVATE_KEY_FILE"]))[0]
    token = issue(key, user_id=user_id, roles=["customer"], issued_at=datetime.now(UTC), token_id=new_id())
    customer, admin = Client(url, token), log_in(url, ADMIN, PASSWORD)
    product = admin.must("GET", f"/products/{shop.product_ids[0]}")
    walk(url, customer, admin, order, product)
    customer.close()
    admin.close()
