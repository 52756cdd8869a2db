"""Places concurrent orders on a running suite: `python -m qa.load --orders 1000 --clients 16` (or `make load`).

A third of the orders must fail: half of these because stock is missing, half because the total exceeds the payment
limit. Each request is repeated under its idempotency key until its response is final, so services may be killed
during the run. At the end the tool waits until the suite is at rest, checks the invariants, and prints the number of
settled orders per second.

`--closed-loop` instead measures clients without any pause: each sends its next order as soon as it has a response, even
if this was a refusal. The tool measures each number of `--clients` (16, 64 and 128 by default) for `--seconds`. It
prints the decided orders per second, the refusals, the errors, the orders cancelled with TIMEOUT, and the latencies. It
fails if there is any refusal, error or TIMEOUT.
"""

import argparse
import asyncio
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
from qa.support.decisions import all_decided, is_good
from qa.support.generator import Generator, percentile

CLOSED_LOOP_CLIENTS = (16, 64, 128)


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


def place_orders(url, customer, bodies, clients):
    """Place all orders of a client's user over `clients` concurrent connections; returns the Result."""
    result, waiting, lock = Result(began=time.monotonic()), SimpleQueue(), threading.Lock()
    for body in bodies:
        waiting.put(body)

    def work():
        client = Client(url, customer.token, customer.credentials)
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


async def closed_loop(generator, clients, seconds):
    """Run a closed loop without pauses and print its result; returns whether no order was refused or lost."""
    began = time.time()
    await generator.closed_loop(clients, seconds, pause=0.0)
    ended = time.time()
    decisions = await all_decided(began)
    decided = sum(is_good(row) and row.decided < ended for row in decisions)
    late = sum(row.cancel_reason == "TIMEOUT" for row in decisions)
    accepted = [response.seconds for response in generator.responses if response.status == 201]
    others = Counter(f"{each.status} {each.detail}".strip() for each in generator.responses if each.status != 201)
    waited = [row.decided - row.created for row in decisions if row.decided]
    print(
        f"closed loop of {clients} for {ended - began:.0f} s: {decided / (ended - began):.1f} decided a second, "
        f"{len(accepted) / (ended - began):.1f} accepted, {sum(others.values())} not accepted, TIMEOUT {late}, "
        f"accepted in {_median_and_p99(accepted)}, decided in {_median_and_p99(waited)}, load {os.getloadavg()[0]:.1f}"
    )
    for detail, count in others.most_common(5):
        print(f"  {count} x {detail}")
    return not others and not late


def _median_and_p99(seconds):
    return f"{percentile(seconds, 0.5) * 1000:.0f} ms (p99 {percentile(seconds, 0.99) * 1000:.0f} ms)"


def main():
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m qa.load", description=__doc__)
    parser.add_argument("--orders", type=int, default=1000)
    parser.add_argument("--clients", type=int, nargs="*", help="16; with --closed-loop one or several numbers")
    parser.add_argument("--closed-loop", action="store_true", help="clients without a pause, for --seconds each")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--url", default=os.environ.get("GATEWAY_URL", "http://127.0.0.1:8000"))
    asked = parser.parse_args()
    password = os.environ.get("DEMO_PASSWORD", "Demo-pass-2026!")
    admin = log_in(asked.url, ADMIN, password)
    customer = log_in(asked.url, CUSTOMER, password)
    products = make_products(admin)
    bodies = plan(asked.orders, products, asked.seed)
    if asked.closed_loop:
        calm = [
            asyncio.run(closed_loop(Generator(asked.url, customer.token, bodies), clients, asked.seconds))
            for clients in asked.clients or CLOSED_LOOP_CLIENTS
        ]
        hide(admin, products)
        checks = await_rest(database_urls(), timeout=60.0, pause=0.2)
        print(report(checks))
        return 0 if all(calm) and not any(one.ids for one in checks) else 1
    (clients,) = asked.clients or [16]
    print(f"{asked.orders} orders by {clients} clients, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    result = place_orders(asked.url, customer, bodies, clients)
    checks = await_rest(database_urls(), timeout=60.0, pause=0.2)
    settled_at = time.monotonic()
    hide(admin, products)
    print_result(result, settled_at)
    print(report(checks))
    return 1 if result.refused or any(one.ids for one in checks) else 0


def hide(admin, products):
    """Hide the products of this run."""
    for product in (*products[0], *products[1:]):
        admin.must("PATCH", f"/products/{product['id']}", {"is_active": False})


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
