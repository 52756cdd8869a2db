"""A client of the REST API that repeats a request until it gets a final response, as a good client does."""

import contextlib
import http.client
import json
import time
from urllib.parse import urlsplit
from uuid import uuid4

PRODUCTS = 10
RETRY_SECONDS = 900.0  # a request is repeated for so long: a restart of RabbitMQ takes minutes on a slow machine
IDLE_SECONDS = 30.0  # the gateway closes a connection that was not used for 75 s
ADMIN = "admin@example.com"
CUSTOMER = "demo@example.com"


class Client:
    """One keep-alive connection to the gateway."""

    response_seconds = 10.0  # longer than the deadline of the gateway

    def __init__(self, url, token=None, credentials=None):
        """`credentials` (email, password) replace a token that has expired."""
        self._url, self._address = url, urlsplit(url).netloc
        self.token, self.credentials = token, credentials
        self.headers = {}  # of the last response
        self._connection = None
        self._used_at = 0.0  # a time.monotonic()

    def request(self, method, path, body=None, headers=None):
        """Return (status, parsed body); raises OSError or HTTPException where there was no response."""
        status, content = self._request(method, path, body, headers)
        if status == http.client.UNAUTHORIZED and self.credentials and self.token:
            self.token = log_in(self._url, *self.credentials).token
            status, content = self._request(method, path, body, headers)
        return status, content

    def _request(self, method, path, body, headers):
        if time.monotonic() - self._used_at > IDLE_SECONDS:
            self.close()
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._address, timeout=self.response_seconds)
        sent = {"Content-Type": "application/json", **(headers or {})}
        if self.token:
            sent["Authorization"] = f"Bearer {self.token}"
        try:
            self._connection.request(method, path, None if body is None else json.dumps(body), sent)
            response = self._connection.getresponse()
            data, self.headers = response.read(), response.headers
            self._used_at = time.monotonic()
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        return response.status, json.loads(data) if data else None

    def must(self, method, path, body=None, headers=None):
        """Return the body of a 2xx response. Repeats the request for RETRY_SECONDS while services are not available.

        Orders get an idempotency key, so that a repeated request creates no second one.
        """
        deadline = time.monotonic() + RETRY_SECONDS
        if (method, path) == ("POST", "/orders"):
            headers = {"Idempotency-Key": str(uuid4()), **(headers or {})}
        while True:
            try:
                status, content = self.request(method, path, body, headers)
            except (OSError, http.client.HTTPException) as error:
                status, content = 0, str(error)
            if 200 <= status < 300:
                return content
            if status not in {0, 409, 503, 504} or time.monotonic() > deadline:
                raise RuntimeError(f"{method} {path}: {status} {content}")
            time.sleep(0.1)

    def first_line(self, path):
        """Return the first line of a response without an end, from a connection of its own that stays open a moment.

        In that time the gateway asks the owning service for what is new.
        """
        with contextlib.closing(http.client.HTTPConnection(self._address, timeout=self.response_seconds)) as connection:
            connection.request("GET", path, headers={"Authorization": f"Bearer {self.token}"})
            response = connection.getresponse()
            if response.status != http.client.OK:
                raise RuntimeError(f"GET {path}: {response.status}")
            line = response.readline()
            time.sleep(0.3)
            return line

    def close(self):
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def log_in(url, email, password):
    """Return a client that is logged in as this user, and logs in again when its token has expired."""
    client = Client(url, credentials=(email, password))
    client.token = client.must("POST", "/users/login", {"email": email, "password": password})["access_token"]
    return client


def make_products(admin, stock=1_000_000):
    """Create the products of one run: returns (products with stock, one without stock, one over the payment limit)."""
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


def place(client, body, key=None, retry_seconds=RETRY_SECONDS):
    """Place one order; returns (status, body, tries, seconds).

    Repeats the request under the same idempotency key until the response is final, for at most `retry_seconds`.
    """
    key, began, tries = key or str(uuid4()), time.monotonic(), 0
    while True:
        tries += 1
        try:
            status, content = client.request("POST", "/orders", body, {"Idempotency-Key": key})
        except (OSError, http.client.HTTPException) as error:
            status, content = 0, type(error).__name__
        in_use = status == 409 and content.get("code") == "IDEMPOTENCY_KEY_IN_USE"
        if not (status in {0, 503, 504} or in_use) or time.monotonic() - began > retry_seconds:
            return status, content, tries, time.monotonic() - began
        time.sleep(0.05 * min(tries, 10))
