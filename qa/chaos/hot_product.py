"""500 concurrent buyers of 100 units of one product; some of them cancel at once.

    python -m qa.chaos.hot_product --rounds 100

A round succeeds if exactly 100 units are sold at the end. A cancellation returns a unit, which can be bought again, so
buyers try again while the product is available. It is an error if more units are sold than there were, if PostgreSQL
detects a deadlock, or if a buyer gets an error other than a 503 with Retry-After, or a 504 or a client's time-out (the
machine may be too slow for 400 concurrent requests). All are repeated under the same idempotency key.
"""

import argparse
import http.client
import random
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from deploy.local.suite import ROOT
from qa.chaos.load import make_product
from qa.chaos.sandbox import sandbox
from qa.chaos.user import NO_RESPONSE
from qa.chaos.verdict import read
from qa.support.consistency import DECIDED_FOR, await_rest, report

BUYERS, UNITS = 500, 100
CANCEL_SHARE = 0.15
ROUND_SECONDS = 900.0  # until the orders of one wave are settled, on a slow machine; normally some seconds
WAVES = 10
STATE = """
    SELECT count(*) FILTER (WHERE status = 'CREATED') AS open,
           coalesce(sum(quantity) FILTER (WHERE status IN ('CONFIRMED', 'SHIPPED', 'DELIVERED')), 0) AS sold
    FROM orders JOIN order_items ON order_id = id WHERE product_id = :product
"""
STOCK = "SELECT on_hand, reserved FROM stock WHERE product_id = :product"
STATUSES = """
    SELECT id, status, cancel_reason FROM orders JOIN order_items ON order_id = id WHERE product_id = :product
"""


@dataclass
class Round:
    """The result of one round."""

    sold: int = 0
    on_hand: int = 0
    orders: int = 0
    cancelled: int = 0
    waves: int = 0
    seconds: float = 0.0
    responses: Counter = field(default_factory=Counter)
    problems: list = field(default_factory=list)


class Sale:
    """Rounds on one sandbox. All rounds use the same threads and connections."""

    def __init__(self, running, chance, pool, buyers):
        self._sandbox, self._chance, self._pool, self._buyers = running, chance, pool, buyers
        self._local, self._lock = threading.local(), threading.Lock()

    def round(self) -> Round:
        """Sell 100 units."""
        began, seen = time.monotonic(), Round()
        product = make_product(self._sandbox.admin, "HOT", "10.00", UNITS)["id"]
        buyers = self._buyers
        while buyers and seen.waves < WAVES:
            seen.waves += 1
            cancels = [self._chance.random() < CANCEL_SHARE and seen.waves == 1 for _ in range(buyers)]
            list(self._pool.map(lambda cancel: self._buy(product, cancel, seen), cancels))
            if not self._await_settled(product, seen):
                break
            # more concurrent buyers than there are units left
            buyers = min(self._buyers, 3 * seen.on_hand)
        seen.seconds = time.monotonic() - began
        self._count(product, seen)
        return seen

    def _buy(self, product, cancel, seen):
        """Buy one unit; with `cancel`, cancel the order at once."""
        body = {"items": [{"product_id": product, "quantity": 1}]}
        status, order = self._post_until_final("/orders", body, {"Idempotency-Key": str(uuid4())}, seen)
        if status != 201:
            seen.problems.append(f"POST /orders: {status} {order}")
        elif cancel:
            status, content = self._post_until_final(f"/orders/{order['id']}/cancel", None, None, seen)
            if status == 202:
                with self._lock:
                    seen.cancelled += 1
            elif status != 409 or content["code"] != "INVALID_STATE":
                seen.problems.append(f"cancel of {order['id']}: {status} {content}")

    def _post_until_final(self, path, body, headers, seen):
        """POST until the response is other than a 503 with Retry-After, a 504 or a time-out of this client."""
        client = self._client()
        deadline = time.monotonic() + ROUND_SECONDS
        while True:
            try:
                status, content = client.request("POST", path, body, headers)
            except NO_RESPONSE as error:
                status, content = 0, type(error).__name__
            with self._lock:
                seen.responses[status] += 1
            busy = status == http.client.SERVICE_UNAVAILABLE and "Retry-After" in client.headers
            in_use = status == http.client.CONFLICT and content["code"] == "IDEMPOTENCY_KEY_IN_USE"
            late = status == http.client.GATEWAY_TIMEOUT or content == TimeoutError.__name__
            if not (busy or late or in_use) or time.monotonic() > deadline:
                return status, content
            time.sleep(float(client.headers.get("Retry-After", 1)) * random.uniform(1.0, 3.0))

    def _client(self):
        if not hasattr(self._local, "client"):
            self._local.client = self._sandbox.customer.new_connection(Counter())
        return self._local.client

    def _await_settled(self, product, seen):
        """Wait until no order is open, and the units sold and on hand add up. False if that fails."""
        deadline = time.monotonic() + ROUND_SECONDS
        while True:
            state, stock = self._look(product)
            seen.sold, seen.on_hand = int(state["sold"]), stock["on_hand"]
            if seen.sold > UNITS:
                seen.problems.append(f"{seen.sold} sold of {UNITS}")
                return False
            if not state["open"] and not stock["reserved"] and seen.sold + seen.on_hand == UNITS:
                return True
            if time.monotonic() > deadline:
                seen.problems.append(f"not settled after {ROUND_SECONDS:.0f} s: {state} {stock}")
                return False
            time.sleep(0.1)

    def _look(self, product):
        urls = self._sandbox.database_urls
        return read(urls["orders"], STATE, product=product)[0], read(urls["inventory"], STOCK, product=product)[0]

    def _count(self, product, seen):
        if seen.sold != UNITS:
            seen.problems.append(f"{seen.sold} sold, {seen.on_hand} left, after {seen.waves} waves")
        statuses = read(self._sandbox.database_urls["orders"], STATUSES, product=product)
        seen.orders = len(statuses)
        refused = Counter(row["cancel_reason"] for row in statuses if row["status"] not in DECIDED_FOR)
        if refused.keys() - {"OUT_OF_STOCK", "USER"}:
            seen.problems.append(f"cancelled for {dict(refused)}")
        if refused["USER"] < seen.cancelled:  # more: the response was a 504, and the repetition came too late
            seen.problems.append(
                f"{seen.cancelled} cancellations were acknowledged, {refused['USER']} orders are cancelled"
            )


def sell(running, rounds, seed, buyers=BUYERS, say=print):
    """Run all rounds, each with so many concurrent buyers; returns their results."""
    chance, done = random.Random(seed), []
    deadlocks = _deadlocks(running)
    with ThreadPoolExecutor(buyers, "buyer") as pool:
        sale = Sale(running, chance, pool, buyers)
        for number in range(1, rounds + 1):
            one = sale.round()
            done.append(one)
            say(
                f"  hot product {number}: {one.sold} of {UNITS} sold to {one.orders} buyers in {one.seconds:.1f} s, "
                f"{one.cancelled} cancelled, {one.waves} waves, responses {dict(one.responses)}"
                + "".join(f"\n    WRONG: {problem}" for problem in one.problems[:5])
            )
    if _deadlocks(running) > deadlocks:
        done[-1].problems.append(f"PostgreSQL detected deadlocks: {running.servers.postgres.log}")
    return done


def _deadlocks(running):
    return running.servers.postgres.log.read_text(errors="replace").count("deadlock detected")


def table(rounds):
    """Return the results as a Markdown table."""
    responses = sum((one.responses for one in rounds), Counter())
    rows = [
        ("rounds", len(rounds)),
        ("orders", sum(one.orders for one in rounds)),
        ("cancelled by their buyers", sum(one.cancelled for one in rounds)),
        (f"rounds with exactly {UNITS} sold", sum(one.sold == UNITS for one in rounds)),
        ("oversold", sum(max(0, one.sold - UNITS) for one in rounds)),
        ("longest round", f"{max((one.seconds for one in rounds), default=0):.1f} s"),
        ("responses", ", ".join(f"{count} x {status}" for status, count in sorted(responses.items()))),
        ("problems", sum(len(one.problems) for one in rounds)),
    ]
    return "\n".join(["| hot product | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]) + "\n"


def main():
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m qa.chaos.hot_product", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--folder", type=Path, default=ROOT / "var/chaos")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    with sandbox(options.folder) as running:
        rounds = sell(running, options.rounds, options.seed)
        checks = await_rest(running.database_urls, 60)
    print(table(rounds), report(checks), sep="\n")
    return 1 if any(one.problems for one in rounds) or any(one.ids for one in checks) else 0


if __name__ == "__main__":
    sys.exit(main())
