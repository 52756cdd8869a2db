"""Measures on a running suite how hostile clients slow down normal ones: `python -m qa.hostile_clients slow|logins`.

slow: 2,000 sockets send a request's head or body byte by byte, or never read their responses, and reconnect whenever
they are dropped. Meanwhile normal clients read products, half of them with a new connection for each request.

logins: 200 concurrent logins, again and again. Meanwhile other clients place orders and request /health/live.

Both print the latencies before and during the attack.
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

from qa.support.client import ADMIN, CUSTOMER, Client, log_in, make_products

PACE_SECONDS = 0.1  # between two requests of a normal client
NORMAL_CLIENTS = 8
HEAD = (
    b"POST /users/refresh-token HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n"
)
UNREAD = b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n"
BEGINNINGS = (b"GET /products HTTP/1.1\r\nHost: x\r\nX-Slow: ", HEAD, UNREAD)


class NormalClients:
    """Threads that send requests at a steady pace. `seconds` holds the latencies, `statuses` counts the statuses."""

    def __init__(self, connect, clients, *, every_second_reconnects=False):
        """`connect()` opens a connection and returns a function that makes a request and returns its status."""
        self.seconds, self.statuses = [], Counter()
        self._connect, self._over = connect, threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(number, every_second_reconnects and number % 2))
            for number in range(clients)
        ]

    def _work(self, number, reconnect):
        client, due = None, time.monotonic() + PACE_SECONDS * number / len(self._threads)
        while not self._over.wait(max(0, due - time.monotonic())):
            client = client or self._connect()
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
        """Run for so many seconds; returns self, whose `str` is the result."""
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
        """The latency in milliseconds under which this share of the requests lies."""
        ordered = sorted(self.seconds)
        return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * share))]

    def __str__(self):
        p50, p99, worst = (self.percentile(share) for share in (0.5, 0.99, 1))
        return f"median {p50:.0f} ms, p99 {p99:.0f} ms, worst {worst:.0f} ms; {dict(self.statuses)}"


def connector(url, method, path, token=None, body=None):
    """Return a function that connects a client; it returns a function that makes this request for its status."""

    def connect():
        client = Client(url, token)
        return lambda: client.request(method, path, body() if body else None)[0]

    return connect


# Slow clients


async def be_slow(host, port, beginning, pause, counts):
    """One slow client: sends a byte every `pause` seconds, reads nothing, and reconnects when it is dropped."""
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
    """Run many slow clients in this process until `over` is set."""
    os.setsid()  # some kernels share processors by session: real clients would not run on this machine
    address = urlsplit(url)

    async def run():
        counts = Counter()
        tasks = []
        for number in range(sockets):
            beginning = BEGINNINGS[number % len(BEGINNINGS)]
            tasks.append(asyncio.create_task(be_slow(address.hostname, address.port, beginning, pause, counts)))
            await asyncio.sleep(0.004)  # real clients do not connect all at once
        ready.set()
        await asyncio.to_thread(over.wait)
        counts_queue.put(dict(counts))
        for task in tasks:
            task.cancel()

    asyncio.run(run())


def slow(asked):
    """Measure how much slow clients slow down normal ones."""

    def normal():
        connect = connector(asked.url, "GET", "/products?limit=5")
        return NormalClients(connect, NORMAL_CLIENTS, every_second_reconnects=True)

    normal().run(2)
    before = normal().run(asked.seconds)
    print(f"without slow sockets: {before}")
    ready, over, counts = multiprocessing.Event(), multiprocessing.Event(), multiprocessing.Queue()
    process = multiprocessing.Process(target=swarm, args=(asked.url, asked.sockets, 2.0, ready, counts, over))
    process.start()
    ready.wait(60)
    during = normal().run(asked.seconds)
    over.set()
    print(f"with {asked.sockets} slow sockets: {during}")
    print(f"slow sockets: {counts.get(timeout=10)}")
    process.join(timeout=10)
    process.kill()
    ratio = during.percentile(0.99) / before.percentile(0.99)
    print(f"p99 is {ratio:.1f} times what it was")
    return 0 if ratio < 2 and set(during.statuses) == {200} else 1


# Logins


def log_in_concurrently(url, password, count, outcomes):
    """Run `count` concurrent logins; appends (status, seconds) of each to `outcomes`."""
    barrier = threading.Barrier(count)

    def one():
        client = Client(url)
        barrier.wait()
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
    """Measure how much many logins slow down other requests."""
    password = os.environ.get("DEMO_PASSWORD", "Demo-pass-2026!")
    product = make_products(log_in(asked.url, ADMIN, password))[0][0]
    token = log_in(asked.url, CUSTOMER, password).token
    order = {"items": [{"product_id": product["id"], "quantity": 1}]}

    def measure(title):
        orders = NormalClients(connector(asked.url, "POST", "/orders", token, lambda: order), 4)
        live = NormalClients(connector(asked.url, "GET", "/health/live"), 2)
        other = threading.Thread(target=live.run, args=(asked.seconds,))
        other.start()
        orders.run(asked.seconds)
        other.join()
        print(f"{title}: orders: {orders}\n{' ' * len(title)}  /health/live: {live}")

    measure("before")
    outcomes, over = [], threading.Event()

    def storm():
        while not over.is_set():
            log_in_concurrently(asked.url, password, asked.logins, outcomes)

    storming = threading.Thread(target=storm)
    storming.start()
    measure("during")
    over.set()
    storming.join()
    took = sorted(seconds for status, seconds in outcomes if status == 200)
    print(f"logins: {dict(Counter(status for status, _ in outcomes))}", end="")
    print(f", the slowest successful one took {took[-1]:.1f} s" if took else "")
    return 0


def main():
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m qa.hostile_clients", description=__doc__)
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
