"""The last hundred: 500 buyers at the same moment for 100 units of one product, some of whom change their mind.

    python -m qa.chaos.hot_product --rounds 100

A round is won when, at rest, exactly 100 units are sold. A unit that a cancellation gives back can be bought again,
so buyers who were told OUT_OF_STOCK try once more as long as the shop shows some. Never may more be sold than there
were, nor PostgreSQL have to break a deadlock, nor a buyer see another error than a 503 with Retry-After or, where the
machine is too slow for 400 requests at once, a 504. Both are repeated under the same key.
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
from qa.chaos.arena import arena
from qa.chaos.load import NO_ANSWER, make_product
from qa.chaos.verdict import read
from qa.support.consistency import DECIDED_FOR, await_rest, report

BUYERS, UNITS = 500, 100
CHANGE_THEIR_MIND = 0.15
ROUND_SECONDS = 60.0  # for one wave to come to rest; the saga's own deadline is 30
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
    """What one round saw."""

    sold: int = 0
    on_hand: int = 0
    orders: int = 0
    cancelled: int = 0
    waves: int = 0
    seconds: float = 0.0
    answers: Counter = field(default_factory=Counter)
    problems: list = field(default_factory=list)


class Sale:
    """Rounds in one arena. The buyers' threads and connections are kept from one round to the next."""

    def __init__(self, running, chance, pool):
        self._arena, self._chance, self._pool = running, chance, pool
        self._local, self._lock = threading.local(), threading.Lock()

    def round(self) -> Round:
        """Sell 100 units."""
        began, seen = time.monotonic(), Round()
        product = make_product(self._arena.admin, "HOT", "10.00", UNITS)["id"]
        buyers = BUYERS
        while buyers and seen.waves < WAVES:
            seen.waves += 1
            plans = [self._chance.random() < CHANGE_THEIR_MIND and seen.waves == 1 for _ in range(buyers)]
            list(self._pool.map(lambda fickle: self._buy(product, fickle, seen), plans))
            if not self._rests(product, seen):
                break
            # as many again as could have been turned away, all at once for what is left
            buyers = min(BUYERS, 3 * seen.on_hand)
        seen.seconds = time.monotonic() - began
        self._count(product, seen)
        return seen

    def _buy(self, product, fickle, seen):
        """Buy one unit under a key, retried until answered; cancel at once if the buyer is fickle."""
        body = {"items": [{"product_id": product, "quantity": 1}]}
        status, order = self._insist("/orders", body, {"Idempotency-Key": str(uuid4())}, seen)
        if status != 201:
            seen.problems.append(f"POST /orders: {status} {order}")
        elif fickle:
            status, answer = self._insist(f"/orders/{order['id']}/cancel", None, None, seen)
            if status == 202:
                with self._lock:
                    seen.cancelled += 1
            elif status != 409 or answer["code"] != "INVALID_STATE":
                seen.problems.append(f"cancel of {order['id']}: {status} {answer}")

    def _insist(self, path, body, headers, seen):
        """POST until there is an answer other than 503 with Retry-After, or 504."""
        client = self._client()
        deadline = time.monotonic() + ROUND_SECONDS
        while True:
            try:
                status, answer = client.request("POST", path, body, headers)
            except NO_ANSWER as error:
                status, answer = 0, type(error).__name__
            with self._lock:
                seen.answers[status] += 1
            busy = status == http.client.SERVICE_UNAVAILABLE and "Retry-After" in client.headers
            in_use = status == http.client.CONFLICT and answer["code"] == "IDEMPOTENCY_KEY_IN_USE"
            late = status == http.client.GATEWAY_TIMEOUT
            if not (busy or late or in_use) or time.monotonic() > deadline:
                return status, answer
            time.sleep(float(client.headers.get("Retry-After", 1)) * random.uniform(0.5, 1.0))

    def _client(self):
        if not hasattr(self._local, "client"):
            self._local.client = self._arena.customer.again(Counter())
        return self._local.client

    def _rests(self, product, seen):
        """Wait until what is sold and what is left make up what there was, and nothing is on its way."""
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
                seen.problems.append(f"not at rest after {ROUND_SECONDS:.0f} s: {state} {stock}")
                return False
            time.sleep(0.1)

    def _look(self, product):
        urls = self._arena.database_urls
        return read(urls["orders"], STATE, product=product)[0], read(urls["inventory"], STOCK, product=product)[0]

    def _count(self, product, seen):
        if seen.sold != UNITS:
            seen.problems.append(f"{seen.sold} sold, {seen.on_hand} left, after {seen.waves} waves")
        statuses = read(self._arena.database_urls["orders"], STATUSES, product=product)
        seen.orders = len(statuses)
        refused = Counter(row["cancel_reason"] for row in statuses if row["status"] not in DECIDED_FOR)
        if refused.keys() - {"OUT_OF_STOCK", "USER"}:
            seen.problems.append(f"cancelled for {dict(refused)}")
        if refused["USER"] < seen.cancelled:  # more: an answer was lost to a 504, and the repetition came too late
            seen.problems.append(f"{seen.cancelled} cancels were acknowledged, {refused['USER']} hold")


def sell(running, rounds, seed, say=print):
    """Run rounds; returns them."""
    chance, done = random.Random(seed), []
    deadlocks = _deadlocks(running)
    with ThreadPoolExecutor(BUYERS, "buyer") as pool:
        sale = Sale(running, chance, pool)
        for number in range(1, rounds + 1):
            one = sale.round()
            done.append(one)
            say(
                f"  hot product {number}: {one.sold} of {UNITS} sold to {one.orders} buyers in {one.seconds:.1f} s, "
                f"{one.cancelled} changed their mind, {one.waves} waves, answers {dict(one.answers)}"
                + "".join(f"\n    WRONG: {problem}" for problem in one.problems[:5])
            )
    if _deadlocks(running) > deadlocks:
        done[-1].problems.append(f"PostgreSQL had to break deadlocks: {running.servers.postgres.log}")
    return done


def _deadlocks(running):
    return running.servers.postgres.log.read_text(errors="replace").count("deadlock detected")


def table(rounds):
    """The rounds as a table."""
    answers = sum((one.answers for one in rounds), Counter())
    rows = [
        ("rounds", len(rounds)),
        ("orders", sum(one.orders for one in rounds)),
        ("cancelled by their buyers", sum(one.cancelled for one in rounds)),
        (f"rounds with exactly {UNITS} sold", sum(one.sold == UNITS for one in rounds)),
        ("oversold", sum(max(0, one.sold - UNITS) for one in rounds)),
        ("longest round", f"{max((one.seconds for one in rounds), default=0):.1f} s"),
        ("answers", ", ".join(f"{count} x {status}" for status, count in sorted(answers.items()))),
        ("problems", sum(len(one.problems) for one in rounds)),
    ]
    return "\n".join(["| hot product | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]) + "\n"


def main():
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m qa.chaos.hot_product", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--folder", type=Path, default=ROOT / "var/chaos")
    asked = parser.parse_args()
    print(f"seed {asked.seed}")
    with arena(asked.folder) as running:
        rounds = sell(running, asked.rounds, asked.seed)
        checks = await_rest(running.database_urls, 60)
    print(table(rounds), report(checks), sep="\n")
    return 1 if any(one.problems for one in rounds) or any(one.ids for one in checks) else 0


if __name__ == "__main__":
    sys.exit(main())
