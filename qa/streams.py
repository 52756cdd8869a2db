"""What idle streams cost: `python -m qa.streams` beside a running suite (or `make bench-streams`).

The tool measures the latency of GET /orders/{id} without streams and with `--streams` idle ones (server-sent events of
orders), in turns, so that both share the moods of the machine. Another process holds the streams. At the end it opens
twice as many as a gateway serves by default and shows how the rest is refused.

It fails if the 99th percentile with streams is more than `--allowed` percent above the one without, or if a stream is
refused in another way than with 503 and Retry-After.
"""

import argparse
import json
import os
import re
import resource
import selectors
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from qa.support.client import ADMIN, CUSTOMER, log_in, make_products, place
from qa.support.generator import percentile

PAUSE_SECONDS = 0.004
SETTLE_SECONDS = 2.0
AT_ONCE = 50
# The process that holds the streams reads now and then, so that it takes little of the processors that are measured.
READ_PAUSE_SECONDS = 2.0
RETRY_AFTER = re.compile(rb"\r\nRetry-After: ([0-9]+)\r\n")


def read_head(sock):
    """Return the head of a response, and what has arrived with it."""
    head = b""
    while b"\r\n\r\n" not in head:
        piece = sock.recv(65536)
        if not piece:
            raise SystemExit("the gateway closed a connection without a response")
        head += piece
    return head


def hold(url, path, token, count):
    """Open streams, print the number of each kind of response, and keep reading until the input ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, count + 100), hard), hard))
    address = urlsplit(url)
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    found, socks, waiting = Counter(), [], selectors.DefaultSelector()
    for first in range(0, count, AT_ONCE):
        batch = [
            socket.create_connection((address.hostname, address.port), 60)
            for _ in range(first, min(count, first + AT_ONCE))
        ]
        for sock in batch:
            sock.sendall(request)
        for sock in batch:
            head = read_head(sock)
            kind = head.split(b" ", 2)[1].decode()
            if kind != "200":
                kind += " with Retry-After" if RETRY_AFTER.search(head) else " without Retry-After"
                sock.close()
                found[kind] += 1
                continue
            found[kind] += 1
            sock.setblocking(False)
            waiting.register(sock, selectors.EVENT_READ)
            socks.append(sock)
    print(json.dumps(dict(found)), flush=True)
    waiting.register(sys.stdin, selectors.EVENT_READ)
    while True:
        time.sleep(READ_PAUSE_SECONDS)
        for key, _ in waiting.select():
            if key.fileobj is sys.stdin:
                return
            with suppress(BlockingIOError):
                if not key.fileobj.recv(65536):
                    waiting.unregister(key.fileobj)


@contextmanager
def held(url, path, token, count):
    """Hold streams in another process; yields the number of responses of each kind."""
    command = [sys.executable, "-m", "qa.streams", "--hold", path, "--streams", str(count), "--url", url]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "STREAM_TOKEN": token}
    )
    try:
        line = process.stdout.readline()
        yield json.loads(line or "{}")
    finally:
        process.stdin.close()
        process.wait(timeout=60)


def measure(client, path, seconds):
    """Return the latencies of a client that asks again after a pause."""
    latencies, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.perf_counter()
        status, _ = client.request("GET", path)
        latencies.append(time.perf_counter() - began)
        if status != 200:
            raise SystemExit(f"GET {path}: {status}")
        time.sleep(PAUSE_SECONDS)
    return latencies


def shown(latencies):
    """Return the percentiles as text."""
    parts = (f"{name} {1000 * percentile(latencies, share):.2f} ms" for name, share in (("p50", 0.5), ("p99", 0.99)))
    return f"{', '.join(parts)} of {len(latencies)}"


def run(arguments):
    """Measure, print, and return the exit code."""
    url = arguments.url
    admin, customer = log_in(url, ADMIN, "Demo-pass-2026!"), log_in(url, CUSTOMER, "Demo-pass-2026!")
    (product, *_), _, _ = make_products(admin)
    order = place(customer, {"items": [{"product_id": product["id"], "quantity": 1}]})[1]
    path = f"/orders/{order['id']}"
    measure(customer, path, SETTLE_SECONDS)
    without, with_streams = [], []
    for number in range(1, arguments.rounds + 1):
        one = measure(customer, path, arguments.seconds)
        with held(url, f"{path}/events", customer.token, arguments.streams) as found:
            if found != {"200": arguments.streams}:
                raise SystemExit(f"not all streams were opened: {found}")
            time.sleep(SETTLE_SECONDS)
            other = measure(customer, path, arguments.seconds)
        time.sleep(SETTLE_SECONDS)
        print(f"round {number}: no stream {shown(one)}; {arguments.streams} idle streams {shown(other)}", flush=True)
        without += one
        with_streams += other
    change = 100 * (percentile(with_streams, 0.99) / percentile(without, 0.99) - 1)
    print(f"all rounds: no stream {shown(without)}; {arguments.streams} idle streams {shown(with_streams)}")
    half = len(without) // 2
    noise = 100 * abs(percentile(without[:half], 0.99) / percentile(without[half:], 0.99) - 1)
    print(
        f"the p99 of the first and the second half without streams differs by {noise:.1f} %: the noise of this machine"
    )
    print(f"the p99 changes by {change:+.1f} %; {arguments.allowed:.0f} % are allowed")
    with held(url, f"{path}/events", customer.token, arguments.beyond) as found:
        print(f"{arguments.beyond} streams: {found}")
    is_polite = set(found) <= {"200", "503 with Retry-After"}
    return 0 if change <= arguments.allowed and is_polite else 1


def main():
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m qa.streams", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default=os.environ.get("GATEWAY_URL", "http://127.0.0.1:8000"))
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--beyond", type=int, default=2000, help="how many streams to open at the end")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    parser.add_argument("--allowed", type=float, default=5.0, help="percent by which the p99 may rise")
    parser.add_argument("--hold", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.hold:
        hold(arguments.url, arguments.hold, os.environ["STREAM_TOKEN"], arguments.streams)
        return 0
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
