"""A process that is frozen (SIGSTOP) or a client that does not read stops nothing that does not need it."""

import os
import signal
import socket
import threading
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from qa.support.client import Client
from tests.support import eventually

POLLERS = 100
POLL_PAUSE_SECONDS = 0.25
ROUNDS = 10
READERS = 60
MEGABYTE = 1024 * 1024


@contextmanager
def frozen(pid):
    """The process does not run inside the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class Pollers:
    """Many clients that poll a path; `statuses` counts the responses."""

    def __init__(self, shop, path):
        self._shop, self._path = shop, path
        self.statuses = Counter()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._poll) for _ in range(POLLERS)]

    def _poll(self):
        client = Client(self._shop.url, self._shop.customer.token)
        while not self._over.is_set():
            with suppress(OSError, HTTPException):
                self.statuses[client.request("GET", self._path)[0]] += 1
            self._over.wait(POLL_PAUSE_SECONDS)
        client.close()

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        for thread in self._threads:
            thread.join()


def test_pollers_of_a_frozen_service_stop_nobody_else(shop):
    pen = shop.product(stock=1000)
    order = shop.order((pen, 1))
    with frozen(shop.suite.pid("notifications")), Pollers(shop, "/notifications") as pollers:
        # This begins before the gateway knows that notifications is frozen, and ends some time after.
        rounds = 0
        while rounds < ROUNDS or pollers.statuses.total() < 5 * POLLERS:
            rounds += 1
            last = shop.order((pen, 1))
            for path in ("/orders", f"/orders/{order['id']}", "/products", f"/products/{pen['id']}", "/payments"):
                shop.get(path, shop.customer)
        shop.reaches(last, "CONFIRMED")
        status, report = shop.admin.request("GET", "/health/ready")
        assert (status, report["status"], report["services"]["notifications"]) == (200, "degraded", {"service": "down"})
        assert set(pollers.statuses) <= {503, 504}
        assert pollers.statuses[504] < pollers.statuses[503]
    assert "the circuit breaker of notifications is open" in shop.suite.log("gateway").read_text()
    eventually(lambda: shop.customer.request("GET", "/notifications")[0] == 200)
    shop.assert_sound()


def resident_bytes(pid):
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


def test_slow_readers_of_a_large_file_share_it(shop):
    address = urlsplit(shop.url)
    gateway = shop.suite.pid("gateway")
    with ExitStack() as held:
        size = len(read_file(address))
        before = resident_bytes(gateway)
        readers = [held.enter_context(ask_for_file(address)) for _ in range(READERS)]
        for reader in readers:
            assert reader.recv(100).startswith(b"HTTP/1.1 200 ")
        assert resident_bytes(gateway) - before < READERS * size / 4
        assert shop.get("/health/live") == {"status": "ok"}


def ask_for_file(address):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(60)
    sock.connect((address.hostname, address.port))
    sock.sendall(b"GET /docs/swagger-ui.js HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    return sock


def read_file(address):
    with socket.create_connection((address.hostname, address.port), timeout=60) as sock:
        sock.sendall(b"GET /docs/swagger-ui.js HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        received = b""
        while piece := sock.recv(MEGABYTE):
            received += piece
    return received
