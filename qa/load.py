"""Places concurrent orders on a running suite: `python -m qa.load --orders 1000 --clients 16` (or `make load`).

A third of the orders must fail: half of these because stock is missing, half because the total exceeds the payment
limit. Each request is repeated under its idempotency key until its response is final, so services may be killed
during the run. At the end the tool waits until the suite is at rest, checks the invariants, and prints the number of
settled orders per second.
"""

import argparse
import os
import random
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from qa.support.client import ADMIN, CUSTOMER, Client, log_in, make_products, place
from qa.support.consistency import await_rest, database_urls, report


@dataclass
class Result:
    """The result of a load. `accepted` holds order ids; times are seconds of time.monotonic()."""

    accepted: list = field(default_factory=list)
    refused: Counter = field(default_factory=Counter)
    retries: int = 0
    latencies: list = field(default_factory=list)
    began: float = 0.0
    accepted_at: float = 0.0


def plan(orders, products, seed):
    """Return the bodies of the orders. A third of them must fail."""
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
    """Place all orders over `clients` concurrent connections; returns the Result."""
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
            status, content, tries, seconds = place(client, body)
            with lock:
                result.retries += tries - 1
                result.latencies.append(seconds)
                if status == 201:
                    result.accepted.append(content["id"])
                else:
                    result.refused[f"{status} {content}"] += 1

    threads = [threading.Thread(target=work, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    result.accepted_at = time.monotonic()
    return result


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
    for product in (*products[0], *products[1:]):  # hide the products of this run
        admin.must("PATCH", f"/products/{product['id']}", {"is_active": False})
    print_result(result, settled_at)
    print(report(checks))
    return 1 if result.refused or any(one.ids for one in checks) else 0


def print_result(result, settled_at):
    """Print counts, latencies and rates."""
    latencies = sorted(result.latencies)
    accepting, settling = result.accepted_at - result.began, settled_at - result.began
    print(f"accepted {len(result.accepted)} in {accepting:.1f} s: {len(result.accepted) / accepting:.0f} a second,")
    median, p99 = latencies[len(latencies) // 2] * 1000, latencies[int(len(latencies) * 0.99)] * 1000
    print(f"  median {median:.0f} ms, p99 {p99:.0f} ms,")
    print(f"  {result.retries} retries; not accepted: {dict(result.refused) or 'none'}")
    print(f"settled all in {settling:.1f} s: {len(result.accepted) / settling:.0f} orders a second")


if __name__ == "__main__":
    sys.exit(main())
