"""Clients that never repeat a request that may have been executed, and that record the outcome of each request."""

import http.client
import json
import random
import select
import threading
import time
from collections import Counter
from urllib.parse import urlsplit

from tests.stopwatch import Stopwatch
from tests.support import TEST_TIMEOUT_SECONDS, eventually

CONNECT_SECONDS = 60.0  # the longest time to wait for a gateway that accepts a connection


class StrictClient:
    """A client with one connection. It retries only a refused connection, because then no request was sent."""

    def __init__(self, url, token, *, keep_alive=True):
        self._address, self._token, self._keep_alive = urlsplit(url).netloc, token, keep_alive
        self._connection = None

    def request(self, method, path, body=None):
        """Return (status, parsed body). Raises OSError or HTTPException if there was no complete response."""
        self._connect()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"}
        try:
            self._connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = self._connection.getresponse()
            content = response.read()
        except BaseException:
            self.close()
            raise
        if response.will_close or not self._keep_alive:
            self.close()
        return response.status, json.loads(content) if content else None

    def _connect(self):
        if self._connection is not None and select.select([self._connection.sock], [], [], 0)[0]:
            self.close()  # the gateway has closed it, and no request is in flight
        deadline = time.monotonic() + CONNECT_SECONDS
        while self._connection is None:
            connection = http.client.HTTPConnection(self._address, timeout=TEST_TIMEOUT_SECONDS)
            try:
                connection.connect()
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                self._connection = connection

    def close(self):
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Traffic:
    """Threads that send requests until the end of the block: `with Traffic(url, token, send) as traffic`.

    `send(client)` sends one request and returns (status, body).
    """

    def __init__(self, url, token, send, *, clients=4, pause=0.05):
        self._send, self._pause = send, pause
        self._stop = threading.Event()
        self.outcomes = Counter()
        self.bodies = []
        self.slowest = 0.0
        self._threads = [
            # Every second client opens a new connection for each request, so that new connections are tested too.
            threading.Thread(target=self._work, args=(StrictClient(url, token, keep_alive=number % 2 == 0),))
            for number in range(clients)
        ]

    def _work(self, client):
        chance = random.Random()
        while not self._stop.is_set():
            began = Stopwatch()
            try:
                status, body = self._send(client)
            except (OSError, http.client.HTTPException) as error:
                status, body = f"{type(error).__name__}: {error}", None
            self.slowest = max(self.slowest, began.seconds)
            self.outcomes[status] += 1
            self.bodies.append((status, body))
            self._stop.wait(chance.uniform(0, 2 * self._pause))
        client.close()

    def bodies_with(self, status):
        """The bodies of all responses with this status."""
        return [body for known, body in self.bodies if known == status]

    def goes_on(self, requests, timeout=30.0):
        """Wait until this number of further requests has ended."""
        known = len(self.bodies)
        eventually(lambda: len(self.bodies) >= known + requests, timeout)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exception):
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=TEST_TIMEOUT_SECONDS)
