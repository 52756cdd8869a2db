"""Windows of a browser, and the running suite before them.

The environment names the suite (SHOP_URL), who controls its processes (CONTROL_ADDRESS), the program of the browser
(CHROMIUM), and where screenshots are kept (PICTURES).
"""

import json
import os
import re
import socket
import time
import urllib.error
import urllib.request
import uuid
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import expect

URL = os.environ["SHOP_URL"]
PASSWORD = "Demo-pass-2026!"
ADMIN, CUSTOMER = "admin@example.com", "demo@example.com"
# Only matters if a test fails.
TIMEOUT_MS = 1000 * float(os.environ.get("STORY_TIMEOUT_SECONDS", "60"))
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
# A browser reports each response with such a status as an error. The stories expect some of them.
STATUS = re.compile(r"the server responded with a status of (\d+)")

expect.set_options(timeout=TIMEOUT_MS)


class Shop:
    """The suite, as another client of the API sees it, and what controls its processes."""

    def __init__(self):
        self._tokens = {}

    def call(self, method, path, body=None, email=ADMIN):
        """The body of a response that must be a success."""
        if email not in self._tokens:
            self._tokens[email] = _send("POST", "/users/login", {"email": email, "password": PASSWORD})["access_token"]
        return _send(method, path, body, self._tokens[email])

    def product(self, price="25.00", stock=50):
        """A new product with a name of its own."""
        name = f"Thing {uuid.uuid4().hex[:8]}"
        sku = f"WEB-{uuid.uuid4().hex[:12]}"
        made = self.call("POST", "/products", {"sku": sku, "name": name, "price": price})
        self.call("POST", "/inventory", {"product_id": made["id"], "quantity": stock})
        return made

    def order(self, product, quantity=1, email=CUSTOMER):
        """Place an order by the API."""
        return self.call("POST", "/orders", {"items": [{"product_id": product["id"], "quantity": quantity}]}, email)

    @contextmanager
    def without(self, service):
        """Within the block, this service does not run. After it, the suite is ready again."""
        control(f"stop {service}")
        try:
            yield
        finally:
            control(f"start {service}")

    def publish(self, queue, body, **properties):
        """Publish a message into a queue, as a broken producer would."""
        control(f"publish {queue} {json.dumps({'body': body, **properties})}")


def control(command):
    """Let the parent process stop or start a service, or publish a message."""
    host, _, port = os.environ["CONTROL_ADDRESS"].partition(":")
    with socket.create_connection((host, int(port)), timeout=600) as connection:
        connection.sendall(f"{command}\n".encode())
        assert connection.makefile().readline() == "done\n"


def _send(method, path, body=None, token=None):
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(URL + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read() or b"null")
    except urllib.error.HTTPError as error:
        pytest.fail(f"{method} {path}: {error.read().decode()}")


class Console:
    """One window with the console in it."""

    def __init__(self, page):
        self.page = page
        self.problems = []
        self.expected = set()
        page.set_default_timeout(TIMEOUT_MS)
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.problems.append(str(error)))

    def _note(self, message):
        if message.type in {"error", "warning"}:
            self.problems.append(message.text)

    def expect_statuses(self, *statuses):
        """Statuses of responses that are part of the story; 0 for no response at all."""
        self.expected |= set(statuses)

    def unexpected(self):
        return [text for text in self.problems if not self._is_expected(text)]

    def _is_expected(self, text):
        status = STATUS.search(text)
        if status:
            return int(status[1]) in self.expected
        return 0 in self.expected and "net::ERR_" in text

    def open(self, path="/"):
        self.page.goto(f"{URL}/#{path}")
        return self

    def heading(self, name):
        expect(self.page.get_by_role("heading", level=1, name=name)).to_be_visible()
        return self

    def button(self, name, **options):
        return self.page.get_by_role("button", name=name, **options)

    def link(self, name, **options):
        return self.page.get_by_role("link", name=name, **options)

    def sees(self, text, **options):
        expect(self.page.get_by_text(text, **options).first).to_be_visible()
        return self

    def put_into_cart(self, product):
        """Find a product in the shop, and add one unit."""
        self.open("/products").heading("Products")
        self.page.get_by_label("Search products").fill(product["name"])
        expect(self.page.locator(".product")).to_have_count(1)
        self.button(f"Add to the cart: {product['name']}").click()
        return self

    def sign_in(self, email):
        self.open("/sign-in")
        self.page.get_by_label("E-mail address").fill(email)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.button("Sign in", exact=True).click()
        expect(self.page.locator(".account-name")).to_have_text(email)
        return self


def eventually(check):
    """Wait for a condition outside of the browser."""
    deadline = time.monotonic() + TIMEOUT_MS / 1000
    while not (result := check()):
        assert time.monotonic() < deadline, "not true in time"
        time.sleep(0.1)
    return result


def picture(console, name):
    """Keep a screenshot for people who want to look at it."""
    folder = Path(os.environ["PICTURES"])
    folder.mkdir(parents=True, exist_ok=True)
    console.page.screenshot(path=folder / f"{name}.png")
