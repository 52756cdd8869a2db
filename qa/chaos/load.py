"""The load of a chaos run: orders at a steady rate, with cancellations, shipments and deliveries.

Every order encodes its number in the quantities of two cheap products, so the orders database tells which of the
requested orders exist, and how often. Responses are counted by status.
"""

import http.client
import itertools
import threading
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from uuid import uuid4

from qa.chaos.payment_methods import PaymentMethods
from qa.chaos.user import RETRY_SECONDS, User
from qa.support.client import make_products, place

STOP_SECONDS = 30.0
NUMBERS = 10_000  # the largest quantity of one line
ABUNDANT = 1_000_000_000
SCARCE = 40
RESTOCK = 25


@dataclass
class OrderRequest:
    """One requested order. Times are seconds of time.time()."""

    number: int
    key: str
    began: float
    status: int = 0
    response: str = ""
    order_id: str | None = None
    tries: int = 0
    responded: float = 0.0
    customer: User | None = None
    done: set = field(default_factory=set)  # commands that were acknowledged


@dataclass
class Catalogue:
    """The products of a run. The quantities of `low` and `high` encode the orders' numbers."""

    selling: list
    scarce: list
    without_stock: dict
    too_dear: dict
    low: dict
    high: dict

    @property
    def all(self):
        return [*self.selling, *self.scarce, self.without_stock, self.too_dear, self.low, self.high]


def make_catalogue(admin):
    """Create the products."""
    selling, without_stock, too_dear = make_products(admin, stock=ABUNDANT)
    scarce = [make_product(admin, f"SCARCE-{number}", "25.00", SCARCE) for number in range(4)]
    low, high = (make_product(admin, name, "0.01", ABUNDANT) for name in ("LOW", "HIGH"))
    return Catalogue(selling, scarce, without_stock, too_dear, low, high)


def make_product(admin, name, price, stock):
    """Create one product with stock."""
    sku = f"CHAOS-{uuid4().hex[:8]}-{name}"
    product = admin.must("POST", "/products", {"sku": sku, "name": name, "price": price})
    admin.must("POST", "/inventory", {"product_id": product["id"], "product_sku": sku, "quantity": stock})
    return product


class Load:
    """Places orders of all customers over `clients` connections, at most `rate` per second, chosen by `chance`."""

    def __init__(self, customers, admin, *, clients, rate, chance):
        self.catalogue = make_catalogue(admin)
        self.responses, self.requests = Counter(), []
        self.restocked = Counter()  # product id: units whose addition was acknowledged
        self.unexpected = []  # responses that no client should get
        self.rate, self.payment_methods = rate, PaymentMethods()
        self._admin, self._chance = admin, chance
        self._clients = [customer for customer, _ in zip(itertools.cycle(customers), range(clients), strict=False)]
        self._lock, self._go, self._ended = threading.Lock(), threading.Event(), threading.Event()
        self._follow_ups = deque()  # (due, command, OrderRequest), in no particular order of time
        self._busy = 0
        self._threads = []

    def start(self):
        """Start the clients' threads."""
        self._began, self._handed_out = time.monotonic(), 0
        jobs = [partial(self._order, customer) for customer in self._clients]
        jobs += [self._do_follow_ups] * 3 + [self._restock]
        self._threads = [threading.Thread(target=self._guard, args=[job], daemon=True) for job in jobs]
        for thread in self._threads:
            thread.start()
        self.resume()

    def pause(self, seconds):
        """Send no new requests, and wait for the responses of the open ones. False if that takes too long."""
        self._go.clear()
        deadline = time.monotonic() + seconds
        while self._busy and time.monotonic() < deadline:
            time.sleep(0.05)
        return not self._busy

    def resume(self):
        """Send requests again."""
        with self._lock:
            self._began, self._handed_out = time.monotonic(), 0
        self._go.set()

    def stop(self):
        """End all threads."""
        self._ended.set()
        self._go.set()
        deadline = time.monotonic() + STOP_SECONDS
        for thread in self._threads:
            thread.join(timeout=max(0.0, deadline - time.monotonic()))

    @property
    def accepted(self):
        """The orders accepted so far."""
        return [order for order in list(self.requests) if order.order_id]

    def _guard(self, job):
        """Record an exception of a client as unexpected; it does not end the load."""
        try:
            job()
        except Exception as error:  # noqa: BLE001
            self.unexpected.append(f"a client gave up: {type(error).__name__}: {error}")

    # Orders

    def _order(self, customer):
        client = customer.new_connection(self.responses)
        while self._await_rate():
            with self._working():
                order, body, plans = self._draw()
                order.customer = customer
                self._place(client, order, body)
                if order.order_id:
                    self._plan(order, plans)
        client.close()

    def _await_rate(self):
        """Wait until the rate permits another order. False when the load has ended."""
        while not self._ended.is_set():
            self._go.wait()
            with self._lock:
                if self._handed_out < (time.monotonic() - self._began) * self.rate:
                    self._handed_out += 1
                    return not self._ended.is_set()
            time.sleep(0.02)
        return False

    def _working(self):
        return _Counted(self)

    def _draw(self):
        """Return the next order: its record, its body, and a random number that chooses its follow-up."""
        with self._lock:
            chance, order = self._chance, self._record()
            kind, plans = chance.random(), chance.random()
            products = {p["id"]: chance.randint(1, 3) for p in chance.sample(self.catalogue.selling, 2)}
            if kind < 0.12:
                products[self.catalogue.without_stock["id"]] = 1
            elif kind < 0.24:
                products[self.catalogue.too_dear["id"]] = 1
            elif kind < 0.44:
                products[chance.choice(self.catalogue.scarce)["id"]] = chance.randint(1, 2)
            method = self.payment_methods.next()
        return order, self._body(order, products, method), plans

    def _record(self):
        """Record the next order; the caller holds the lock."""
        order = OrderRequest(len(self.requests) + 1, str(uuid4()), time.time())
        self.requests.append(order)
        return order

    def _body(self, order, products, payment_method=None):
        numbered = products | {
            self.catalogue.low["id"]: order.number % NUMBERS + 1,
            self.catalogue.high["id"]: order.number // NUMBERS + 1,
        }
        body = {"items": [{"product_id": key, "quantity": count} for key, count in numbered.items()]}
        return body | ({"payment_method": payment_method} if payment_method else {})

    def place_alone(self, client, products, payment_method=None, retry_seconds=0.0):
        """Place an order of {product id: quantity}, whatever the load does; returns its record. Without `retry_seconds`
        there is one try."""
        with self._lock:
            order = self._record()
        order.customer = client
        body = self._body(order, products, payment_method)
        order.status, content, order.tries, _ = place(client, body, order.key, retry_seconds)
        order.responded = time.time()
        if order.status == http.client.CREATED:
            order.order_id = content["id"]
        else:
            order.response = content if isinstance(content, str) else content.get("code", str(content))
        return order

    def _place(self, client, order, body):
        order.status, content, order.tries, _ = place(client, body, order.key, RETRY_SECONDS)
        order.responded = time.time()
        if order.status == 201:
            order.order_id = content["id"]
        else:
            order.response = str(content)
            self.unexpected.append(f"POST /orders (key {order.key}): {order.status} {content}")

    def _plan(self, order, plans):
        """Some orders are cancelled at once or later, some are shipped, and some of these delivered."""
        if plans < 0.10:
            self._do_later(0, "cancel", order)
        elif plans < 0.22:
            self._do_later(plans * 30, "cancel", order)  # 3 to 6.6 s: usually after the confirmation
        elif plans < 0.30:
            self._do_later(plans * 15, "ship", order)
        elif plans < 0.34:  # concurrently: one of them wins
            self._do_later(2, "ship", order)
            self._do_later(2, "cancel", order)

    def _do_later(self, seconds, command, order):
        with self._lock:
            self._follow_ups.append((time.monotonic() + seconds, command, order))

    # Follow-ups

    def _do_follow_ups(self):
        admin = self._admin.new_connection(self.responses)
        owners = {one: one.new_connection(self.responses) for one in set(self._clients)}
        while not self._ended.is_set():
            self._go.wait()
            with self._working():
                follow_up = self._next_follow_up()
                if follow_up:
                    _, command, order = follow_up
                    self._command(owners[order.customer] if command == "cancel" else admin, command, order)
            if not follow_up:
                time.sleep(0.05)

    def _next_follow_up(self):
        """Return a follow-up that is due, or None. The deque is short."""
        with self._lock, suppress(StopIteration):
            follow_up = next(one for one in self._follow_ups if one[0] <= time.monotonic())
            self._follow_ups.remove(follow_up)
            return follow_up
        return None

    def _command(self, client, command, order):
        status, content = client.request_until_final("POST", f"/orders/{order.order_id}/{command}")
        if status in {200, 202}:
            order.done.add(command)
            if command == "ship" and self._chance.random() < 0.5:
                self._do_later(1, "deliver", order)
        elif status != 409:  # 409: too late or too early, or the first response was lost
            self.unexpected.append(f"POST /orders/{order.order_id}/{command}: {status} {content}")

    def _restock(self):
        """Add units of scarce products from time to time, each under an idempotency key."""
        admin = self._admin.new_connection(self.responses)
        while not self._ended.wait(1.5):
            self._go.wait()
            with self._working():
                product = self._chance.choice(self.catalogue.scarce)["id"]
                status, content = admin.request_until_final(
                    "POST",
                    f"/inventory/{product}/adjustments",
                    {"delta": RESTOCK, "reason": "delivery"},
                    {"Idempotency-Key": str(uuid4())},
                )
                if status == 201:
                    self.restocked[product] += RESTOCK
                elif not self._ended.is_set():
                    self.unexpected.append(f"POST /inventory/{product}/adjustments: {status} {content}")


class _Counted:
    """Counts open requests, so that `pause` knows when there are none."""

    def __init__(self, load):
        self._load = load

    def __enter__(self):
        with self._load._lock:
            self._load._busy += 1

    def __exit__(self, *_):
        with self._load._lock:
            self._load._busy -= 1
