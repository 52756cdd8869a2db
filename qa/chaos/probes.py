"""The probes of a run with slow faults: requests at a constant rate, whether earlier ones have ended or not.

Each sample is measured from the time at which its request was due, so a probe that is blocked is not measured less
often than one that is not. A decision is read in the database of orders, about the orders that a probe has placed.
"""

import threading
import time
from collections import deque

from qa.chaos.isolation import Probe, Sample
from qa.chaos.user import NO_RESPONSE
from qa.chaos.verdict import read

GATEWAY, CALLS = "gateway", "calls"
ORDER, DECISION, LOGIN = "an order is accepted", "an order is decided", "POST /users/login"
WORKERS = 3  # of each probe
LATEST_SECONDS = 5.0  # a request that could not be sent for so long counts as failed
STOP_SECONDS = 15.0
FIRST_ORDER_SECONDS = 240.0
MOST_SAMPLES = 200_000  # of one round


def _through_gateway(name, rate, service):
    return Probe(name, frozenset({GATEWAY, CALLS, service}), rate)


PROBES = (
    _through_gateway(ORDER, 2.0, "orders"),
    Probe(DECISION, frozenset({"orders", "inventory", "payments"}), 0.0),
    _through_gateway("GET /orders/{id}", 3.0, "orders"),
    _through_gateway("GET /products/{id}", 3.0, "catalog"),
    _through_gateway("GET /notifications", 1.0, "notifications"),
    _through_gateway(LOGIN, 0.5, "users"),
    Probe("GET /health/live", frozenset({GATEWAY}), 2.0),
)
DECISIONS = """
    SELECT status, cancel_reason, extract(epoch FROM created_at) AS began, extract(epoch FROM clock_timestamp()) AS now,
           (SELECT extract(epoch FROM min(at)) FROM timeline
            WHERE order_id = orders.id AND event IN ('order.confirmed', 'order.cancelled')) AS decided
    FROM orders WHERE id = ANY(CAST(:ids AS uuid[]))
"""


class Probes:
    """Threads that make the requests of all probes to a sandbox. The load keeps account of the orders.

    On a machine that is `slowness` times slower than others, they make fewer requests and wait longer.
    """

    def __init__(self, sandbox, load, slowness=1.0):
        self._sandbox, self._load, self._slowness = sandbox, load, slowness
        self._samples, self._placed = deque(maxlen=MOST_SAMPLES), deque(maxlen=MOST_SAMPLES)
        self._over, self._threads = threading.Event(), []
        self._product = load.catalogue.selling[0]["id"]
        order = self._place(sandbox.customer, FIRST_ORDER_SECONDS)
        if order.order_id is None:
            raise RuntimeError(f"the probes could not place an order: {order.status} {order.response}")
        self._order = order.order_id

    def start(self):
        """Begin a round, without the samples of the previous one."""
        self._samples.clear()
        self._placed.clear()
        self._over.clear()
        paces = [(probe.name, Pace(probe.rate / self._slowness)) for probe in PROBES if probe.rate]
        self._threads = [
            threading.Thread(target=self._work, args=(name, pace), daemon=True)
            for name, pace in paces
            for _ in range(WORKERS)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self):
        """Make no more requests, and wait for the open ones."""
        self._over.set()
        deadline = time.monotonic() + STOP_SECONDS
        for thread in self._threads:
            thread.join(timeout=max(0.0, deadline - time.monotonic()))

    def samples(self):
        """Return the samples of the round so far; an order that is not decided yet has waited until now."""
        placed = [str(key) for key in list(self._placed)]
        rows = read(self._sandbox.database_urls["orders"], DECISIONS, ids=placed) if placed else []
        return [*list(self._samples), *map(decision, rows)]

    def _work(self, name, pace):
        client = self._sandbox.customer.new_connection(self._load.responses)
        latest = LATEST_SECONDS * self._slowness
        while not self._over.wait(max(0.0, (due := pace.next()) - time.time())):
            failure = f"not sent for {latest:.0f} s"
            if time.time() - due < latest:
                failure = self._failure(name, client)
            self._samples.append(Sample(name, due, time.time() - due, failure))
        client.close()

    def _failure(self, name, client):
        """Make one request; returns an empty text, or why it failed."""
        if name == ORDER:
            order = self._place(client)
            if order.order_id is None:
                return f"{order.status or 'no response'} {order.response}"
            self._placed.append(order.order_id)
            return ""
        try:
            status, content = self._request(name, client)
        except NO_RESPONSE as error:
            return type(error).__name__
        return "" if status == 200 else f"{status} {(content or {}).get('code', '')}".strip()

    def _place(self, client, retry_seconds=0.0):
        """Place an order of a known product."""
        return self._load.place_alone(client, {self._product: 1}, retry_seconds=retry_seconds)

    def _request(self, name, client):
        if name == LOGIN:
            return client.request("POST", "/users/login", client.account.credentials)
        method, _, path = name.partition(" ")
        identifier = self._order if "/orders/" in path else self._product
        return client.request(method, path.replace("{id}", identifier))


class Pace:
    """Times at a constant rate, shared by the workers of a probe."""

    def __init__(self, rate):
        self._next, self._pause, self._lock = time.time(), 1.0 / rate, threading.Lock()

    def next(self):
        """The next time at which a request is due, also if it has passed."""
        with self._lock:
            due, self._next = self._next, self._next + self._pause
            return due


def decision(row):
    """The sample of an order's decision, from a row of DECISIONS."""
    began, ended = float(row["began"]), float(row["decided"] or row["now"])
    failure = f"cancelled: {row['cancel_reason']}" if row["status"] == "CANCELLED" else ""
    return Sample(DECISION, began, ended - began, failure)
