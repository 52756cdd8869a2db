"""What honest clients notice of rude ones, on a running suite: `python -m qa.doors slow`, or `logins`.

slow: two thousand sockets that dribble a request's head or body, or do not read their answers, come back whenever they
are dropped. Honest clients read products meanwhile, half of them with a new connection for each request.

logins: two hundred logins at the same moment, again and again. Meanwhile orders are placed and /health/live is asked.

Both print the latencies before and during, and end by themselves.
"""

import argparse
import asyncio
import http.client
import multiprocessing
import os
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from urllib.parse import urlsplit

from qa.load import ADMIN, CUSTOMER, Client, log_in, make_products

PACE_SECONDS = 0.1  # between two requests of an honest client
HONEST = 8
HEAD = (
    b"POST /users/refresh-token HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n"
)
UNREAD = b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n"
BEGINNINGS = (b"GET /products HTTP/1.1\r\nHost: x\r\nX-Slow: ", HEAD, UNREAD)


class Honest:
    """Threads that make one request after the other at a steady pace; `seconds` and `statuses` of all of them."""

    def __init__(self, what, clients, *, every_second_reconnects=False):
        """`what(client)` makes a request and returns its status."""
        self.seconds, self.statuses = [], Counter()
        self._what, self._over = what, threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(number, every_second_reconnects and number % 2))
            for number in range(clients)
        ]

    def _work(self, number, reconnect):
        client, due = None, time.monotonic() + PACE_SECONDS * number / len(self._threads)
        while not self._over.wait(max(0, due - time.monotonic())):
            client = client or self._what()
            began = time.monotonic()
            try:
                status = client()
            except (OSError, http.client.HTTPException) as error:
                status, client = type(error).__name__, None
            self.seconds.append(time.monotonic() - began)
            self.statuses[status] += 1
            client = None if reconnect else client
            due = max(due + PACE_SECONDS, time.monotonic())

    def run(self, seconds):
        """Run for so long; return what happened in words."""
        self.seconds, self.statuses = [], Counter()
        self._over.clear()
        for thread in self._threads:
            thread.start()
        time.sleep(seconds)
        self._over.set()
        for thread in self._threads:
            thread.join()
        return self

    def percentile(self, share):
        """In milliseconds."""
        ordered = sorted(self.seconds)
        return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * share))]

    def __str__(self):
        p50, p99, worst = (self.percentile(share) for share in (0.5, 0.99, 1))
        return f"median {p50:.0f} ms, p99 {p99:.0f} ms, worst {worst:.0f} ms; {dict(self.statuses)}"


def asks(url, method, path, token=None, body=None):
    """Return a function that makes a client: a function that makes this request and returns the status."""

    def connect():
        client = Client(url, token)
        return lambda: client.request(method, path, body() if body else None)[0]

    return connect


# Slow clients


async def be_slow(host, port, beginning, pause, counts):
    """Be one slow client: dribble a byte every `pause` seconds, read nothing, and come back when dropped."""
    while True:
        try:
            reader, writer = await asyncio.open_connection(host, port, limit=1)
        except OSError:
            counts["refused"] += 1
            await asyncio.sleep(1)
            continue
        with suppress(OSError):
            writer.transport.pause_reading()
            writer.write(beginning)
            while not reader.at_eof() and not writer.is_closing():
                await asyncio.sleep(pause)
                writer.write(b"x")
        counts["dropped"] += 1
        writer.transport.abort()


def swarm(url, sockets, pause, ready, counts_queue, over):
    """Be many slow clients, in a process of one's own, until `over`."""
    os.setsid()  # strangers have machines of their own: where processors are shared by sessions, theirs has a share
    address = urlsplit(url)

    async def run():
        counts = Counter()
        tasks = []
        for number in range(sockets):
            beginning = BEGINNINGS[number % len(BEGINNINGS)]
            tasks.append(asyncio.create_task(be_slow(address.hostname, address.port, beginning, pause, counts)))
            await asyncio.sleep(0.004)  # one after the other: strangers neither come nor send at the same moment
        ready.set()
        await asyncio.to_thread(over.wait)
        counts_queue.put(dict(counts))
        for task in tasks:
            task.cancel()

    asyncio.run(run())


def slow(asked):
    """Measure what slow clients do to honest ones."""

    def honest():
        return Honest(asks(asked.url, "GET", "/products?limit=5"), HONEST, every_second_reconnects=True)

    honest().run(2)
    before = honest().run(asked.seconds)
    print(f"without them: {before}")
    ready, over, counts = multiprocessing.Event(), multiprocessing.Event(), multiprocessing.Queue()
    process = multiprocessing.Process(target=swarm, args=(asked.url, asked.sockets, 2.0, ready, counts, over))
    process.start()
    ready.wait(60)
    during = honest().run(asked.seconds)
    over.set()
    print(f"with {asked.sockets} slow sockets: {during}")
    print(f"the slow: {counts.get(timeout=10)}")
    process.join(timeout=10)
    process.kill()
    ratio = during.percentile(0.99) / before.percentile(0.99)
    print(f"p99 is {ratio:.1f} times what it was")
    return 0 if ratio < 2 and set(during.statuses) == {200} else 1


# Logins


def log_in_at_once(url, password, count, outcomes):
    """Log in so often at the same moment; notes how each ended and how long it took."""
    together = threading.Barrier(count)

    def one():
        client = Client(url)
        together.wait()
        began = time.monotonic()
        try:
            status = client.request("POST", "/users/login", {"email": CUSTOMER, "password": password})[0]
        except (OSError, http.client.HTTPException) as error:
            status = type(error).__name__
        outcomes.append((status, time.monotonic() - began))

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def logins(asked):
    """Measure what many logins do to everything else."""
    password = os.environ.get("DEMO_PASSWORD", "Demo-pass-2026!")
    product = make_products(log_in(asked.url, ADMIN, password))[0][0]
    token = log_in(asked.url, CUSTOMER, password).token
    order = {"items": [{"product_id": product["id"], "quantity": 1}]}

    def measure(title):
        orders = Honest(asks(asked.url, "POST", "/orders", token, lambda: order), 4)
        live = Honest(asks(asked.url, "GET", "/health/live"), 2)
        other = threading.Thread(target=live.run, args=(asked.seconds,))
        other.start()
        orders.run(asked.seconds)
        other.join()
        print(f"{title}: orders: {orders}\n{' ' * len(title)}  /health/live: {live}")

    measure("before")
    outcomes, over = [], threading.Event()

    def storm():
        while not over.is_set():
            log_in_at_once(asked.url, password, asked.logins, outcomes)

    storming = threading.Thread(target=storm)
    storming.start()
    measure("during")
    over.set()
    storming.join()
    took = sorted(seconds for status, seconds in outcomes if status == 200)
    print(f"logins: {dict(Counter(status for status, _ in outcomes))}", end="")
    print(f", of those that succeeded the slowest took {took[-1]:.1f} s" if took else "")
    return 0


def main():
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m qa.doors", description=__doc__)
    parser.add_argument("what", choices=["slow", "logins"])
    parser.add_argument("--sockets", type=int, default=2000)
    parser.add_argument("--logins", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--url", default=os.environ.get("GATEWAY_URL", "http://127.0.0.1:8000"))
    asked = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    return {"slow": slow, "logins": logins}[asked.what](asked)


if __name__ == "__main__":
    sys.exit(main())
