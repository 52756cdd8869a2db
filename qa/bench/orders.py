"""Places orders at a candidate over HTTP, and finds the time at which each was settled.

An order is settled when its stock is committed, its payment is captured, its own row says so, and the customer's
notifications of creation and confirmation are stored. The time is that of the last of these commits, as recorded by
PostgreSQL (track_commit_timestamp), so nothing polls during the load.
"""

import contextlib
import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

import psycopg2

from deploy.local.suite import ROOT
from qa.bench.bench_servers import QUIET, dsn

SETTLE_SECONDS = 60.0
POLL_SECONDS = 0.1
PENDING = """
    SELECT count(*) FROM orders WHERE created_at >= to_timestamp(%s) AND status <> 'CANCELLED'
    AND (status <> 'CONFIRMED' OR stock_status <> 'COMMITTED' OR payment_status <> 'CAPTURED')
"""
ORDERS = """
    SELECT id::text, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float FROM orders
    WHERE created_at >= to_timestamp(%s)
    AND status = 'CONFIRMED' AND stock_status = 'COMMITTED' AND payment_status = 'CAPTURED'
"""
NOTIFIED = """
    SELECT order_id::text, extract(epoch FROM max(pg_xact_commit_timestamp(xmin)))::float FROM notifications
    WHERE about_id = ANY(%s::uuid[]) AND kind IN ('order.created', 'order.confirmed')
    GROUP BY order_id HAVING count(*) = 2
"""


@dataclass
class Loaded:
    """The result of a load. Times are those of time.time(), latencies are seconds."""

    began: float
    ended: float
    cpu_seconds: float = 0.0
    not_sent: int = 0
    accepted: dict = field(default_factory=dict)  # by order id: the time at which its request was due
    accept_seconds: list = field(default_factory=list)
    refused: Counter = field(default_factory=Counter)
    settled: dict = field(default_factory=dict)  # by order id: the time at which it was settled

    @property
    def accepted_per_second(self):
        """Orders accepted per second, from the first request to the last accepted one."""
        return len(self.accepted) / (self.ended - self.began)

    @property
    def settled_per_second(self):
        """Orders settled per second, from the first request to the last settlement."""
        return len(self.settled) / (max(self.settled.values()) - self.began) if self.settled else 0.0

    @property
    def settle_seconds(self):
        """The seconds from the time at which each order's request was due until it was settled."""
        return [at - self.accepted[one] for one, at in self.settled.items() if one in self.accepted]

    @property
    def lost(self):
        """The number of accepted orders that were not settled: cancelled by the deadline, or stuck."""
        return len(self.accepted.keys() - self.settled.keys())


def generate(address, requests, seconds, *, clients=0, rate=0.0):
    """Run the load generator; returns its result."""
    plan = {"address": address, "requests": requests, "seconds": seconds}
    plan |= {"rate": rate} if rate else {"clients": clients}
    done = subprocess.run(
        [sys.executable, "-m", "qa.bench.load"],
        input=json.dumps(plan),
        cwd=ROOT,
        env=QUIET,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds + 60,
    )
    if done.returncode:
        raise RuntimeError(f"the load generator failed: {done.stderr[-2000:]}")
    result = json.loads(done.stdout)
    loaded = Loaded(result["began"], result["ended"], result["cpu_seconds"], result["not_sent"])
    last = 0.0
    for due, took, status, made in result["responses"]:
        if 200 <= status < 300:
            loaded.accept_seconds.append(took)
            if made:
                loaded.accepted[made] = due
            last = max(last, due + took)
        else:
            loaded.refused[status] += 1
    # the time of the last response, not of the generator's timeout for missing ones
    loaded.ended = last if loaded.accept_seconds else result["ended"]
    return loaded


def requests_per_second(address, paths, seconds, clients, headers=None):
    """The rate of GETs of these paths in a closed loop. RuntimeError if a response is not a success."""
    requests = [{"method": "GET", "path": path, "headers": headers or {}} for path in paths]
    loaded = generate(address, requests, seconds, clients=clients)
    if loaded.refused or not loaded.accept_seconds:
        raise RuntimeError(f"{paths[0]} returned {dict(loaded.refused)}")
    return len(loaded.accept_seconds) / (loaded.ended - loaded.began)


def order_requests(product_ids, headers=None, path="/orders"):
    """Requests for orders of two items each; every product is in equally many of them."""
    pairs = [(one, two) for number, one in enumerate(product_ids) for two in product_ids[number + 1 :]]
    return [
        {
            "method": "POST",
            "path": path,
            "headers": headers or {},
            "body": {"items": [{"product_id": one, "quantity": 1} for one in pair]},
        }
        for pair in pairs
    ]


def place(address, requests, urls, seconds, *, clients=0, rate=0.0):
    """Place orders, and wait until all are settled, for at most a minute."""
    since = time.time()
    loaded = generate(address, requests, seconds, clients=clients, rate=rate)
    await_settled(loaded, urls, since)
    return loaded


def await_settled(loaded, urls, since):
    """Wait until the orders created since then are settled, and record their times in `loaded`."""
    with contextlib.ExitStack() as stack:
        look = {one: stack.enter_context(connected(urls[one])) for one in ("orders", "notifications")}
        deadline = time.monotonic() + SETTLE_SECONDS
        while _count(look["orders"], since) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        while True:
            settled = _settled(look, since)
            if len(settled) >= len(loaded.accepted) - _cancelled(look["orders"], since):
                break
            if time.monotonic() > deadline:
                break
            time.sleep(POLL_SECONDS)
    loaded.settled = settled


@contextlib.contextmanager
def connected(url):
    """A cursor on a database, with autocommit."""
    connection = psycopg2.connect(dsn(url))
    connection.autocommit = True
    try:
        yield connection.cursor()
    finally:
        connection.close()


def _count(orders, since):
    orders.execute(PENDING, (since,))
    return orders.fetchone()[0]


def _cancelled(orders, since):
    orders.execute(
        "SELECT count(*) FROM orders WHERE created_at >= to_timestamp(%s) AND status = 'CANCELLED'", (since,)
    )
    return orders.fetchone()[0]


def _settled(look, since):
    look["orders"].execute(ORDERS, (since,))
    decided = dict(look["orders"].fetchall())
    # Select notifications by order: they have no index on the time, and there may be millions of them.
    look["notifications"].execute(NOTIFIED, (list(decided),))
    notified = dict(look["notifications"].fetchall())
    return {one: max(at, notified[one]) for one, at in decided.items() if one in notified}


def percentile(values, share):
    """A percentile in the values' unit; 0 without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
