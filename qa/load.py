"""A load of orders on a running suite: `python -m qa.load --orders 1000 --clients 16` (or `make load`).

A third of the orders is bound to fail: half of those for want of stock, half by a total over the payment limit. Each
request is repeated under its idempotency key until it is answered, as a good client does, so that services may be
killed meanwhile. At the end it waits until everything is at rest, counts the invariants, and prints how many orders
were settled per second. It ends by itself.
"""

import argparse
import http.client
import json
import os
import random
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from urllib.parse import urlsplit
from uuid import uuid4

from tests.books import await_rest, database_urls, report

PRODUCTS = 10
PATIENCE = 60.0  # seconds in which one order must be accepted, whatever happens to the services
ADMIN = "admin@example.com"
CUSTOMER = "demo@example.com"


@dataclass
class Result:
    """What a load did. `accepted` are order ids; times are seconds of time.monotonic()."""

    accepted: list = field(default_factory=list)
    refused: Counter = field(default_factory=Counter)
    retries: int = 0
    latencies: list = field(default_factory=list)
    began: float = 0.0
    accepted_at: float = 0.0


class Client:
    """One keep-alive connection to the gateway."""

    def __init__(self, url, token=None):
        self._address = urlsplit(url).netloc
        self.token = token
        self.headers = {}  # of the last answer
        self._connection = None

    def request(self, method, path, body=None, headers=None):
        """Return (status, parsed body); raises OSError or HTTPException where there was no answer."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._address, timeout=10)
        sent = {"Content-Type": "application/json", **(headers or {})}
        if self.token:
            sent["Authorization"] = f"Bearer {self.token}"
        try:
            self._connection.request(method, path, None if body is None else json.dumps(body), sent)
            response = self._connection.getresponse()
            content, self.headers = response.read(), response.headers
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        return response.status, json.loads(content) if content else None

    def must(self, method, path, body=None, headers=None):
        """Return the body of a 2xx answer; repeats while the suite is not available, for PATIENCE seconds."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                status, answer = self.request(method, path, body, headers)
            except (OSError, http.client.HTTPException) as error:
                status, answer = 0, str(error)
            if 200 <= status < 300:
                return answer
            if status not in {0, 409, 503, 504} or time.monotonic() > deadline:
                raise RuntimeError(f"{method} {path}: {status} {answer}")
            time.sleep(0.1)

    def close(self):
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def log_in(url, email, password):
    """Return a client that acts for a user."""
    client = Client(url)
    client.token = client.must("POST", "/users/login", {"email": email, "password": password})["access_token"]
    return client


def make_products(admin, stock=1_000_000):
    """Create the products of one run; returns (those that sell, one without stock, one over the payment limit)."""
    run = uuid4().hex[:8]
    products = []
    for number in range(PRODUCTS):
        price = "12500.00" if number == 1 else f"{10 + number}.90"
        product = admin.must(
            "POST", "/products", {"sku": f"LOAD-{run}-{number}", "name": f"Load {number}", "price": price}
        )
        quantity = 0 if number == 0 else stock
        admin.must(
            "POST", "/inventory", {"product_id": product["id"], "product_sku": product["sku"], "quantity": quantity}
        )
        products.append(product)
    return products[2:], products[0], products[1]


def plan(orders, products, seed):
    """Return the bodies of the orders, a third of them bound to fail."""
    selling, without_stock, too_dear = products
    chance = random.Random(seed)
    bodies = []
    for number in range(orders):
        items = [{"product_id": p["id"], "quantity": chance.randint(1, 3)} for p in chance.sample(selling, 2)]
        if number % 6 == 0:
            items.append({"product_id": without_stock["id"], "quantity": 1})
        elif number % 6 == 3:
            items.append({"product_id": too_dear["id"], "quantity": 1})
        bodies.append({"items": items})
    return bodies


def place_orders(url, token, bodies, clients):
    """Place all orders by `clients` concurrent connections; returns the Result."""
    result, waiting, lock = Result(began=time.monotonic()), SimpleQueue(), threading.Lock()
    for body in bodies:
        waiting.put(body)

    def work():
        client = Client(url, token)
        while True:
            try:
                body = waiting.get_nowait()
            except Empty:
                client.close()
                return
            status, answer, tries, seconds = place(client, body)
            with lock:
                result.retries += tries - 1
                result.latencies.append(seconds)
                if status == 201:
                    result.accepted.append(answer["id"])
                else:
                    result.refused[f"{status} {answer}"] += 1

    threads = [threading.Thread(target=work, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    result.accepted_at = time.monotonic()
    return result


def place(client, body, key=None, patience=PATIENCE):
    """Place one order, repeating it under the same key until there is an answer or `patience` seconds are over."""
    key, began, tries = key or str(uuid4()), time.monotonic(), 0
    while True:
        tries += 1
        try:
            status, answer = client.request("POST", "/orders", body, {"Idempotency-Key": key})
        except (OSError, http.client.HTTPException) as error:
            status, answer = 0, type(error).__name__
        in_use = status == 409 and answer.get("code") == "IDEMPOTENCY_KEY_IN_USE"
        if not (status in {0, 503, 504} or in_use) or time.monotonic() - began > patience:
            return status, answer, tries, time.monotonic() - began
        time.sleep(0.05 * min(tries, 10))


def main():
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m qa.load", description=__doc__)
    parser.add_argument("--orders", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--url", default=os.environ.get("GATEWAY_URL", "http://127.0.0.1:8000"))
    asked = parser.parse_args()
    password = os.environ.get("DEMO_PASSWORD", "Demo-pass-2026!")
    admin = log_in(asked.url, ADMIN, password)
    customer = log_in(asked.url, CUSTOMER, password)
    products = make_products(admin)
    bodies = plan(asked.orders, products, asked.seed)
    print(f"{asked.orders} orders by {asked.clients} clients, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    result = place_orders(asked.url, customer.token, bodies, asked.clients)
    checks = await_rest(database_urls(), timeout=60.0, pause=0.2)
    settled_at = time.monotonic()
    for product in (*products[0], *products[1:]):  # the shop looks as before
        admin.must("PATCH", f"/products/{product['id']}", {"is_active": False})
    print_result(result, settled_at)
    print(report(checks))
    return 1 if result.refused or any(one.ids for one in checks) else 0


def print_result(result, settled_at):
    """Print what the load did, and how fast."""
    latencies = sorted(result.latencies)
    accepting, settling = result.accepted_at - result.began, settled_at - result.began
    print(f"accepted {len(result.accepted)} in {accepting:.1f} s: {len(result.accepted) / accepting:.0f} a second,")
    median, p99 = latencies[len(latencies) // 2] * 1000, latencies[int(len(latencies) * 0.99)] * 1000
    print(f"  median {median:.0f} ms, p99 {p99:.0f} ms,")
    print(f"  {result.retries} retries; not accepted: {dict(result.refused) or 'none'}")
    print(f"settled all in {settling:.1f} s: {len(result.accepted) / settling:.0f} orders a second")


if __name__ == "__main__":
    sys.exit(main())
