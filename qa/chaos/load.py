"""The load of a run: orders at a steady rate, with cancellations, shipments and deliveries mixed in, until the end.

Every order carries its number in the quantities of two products that cost next to nothing, so that the orders
database itself tells which of them exist, and how often. Every answer is counted by its status.
"""

import http.client
import threading
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import uuid4

from qa.support.client import Client, make_products, place

PATIENCE = 300.0  # seconds in which a request must be answered, whatever the faults
TOKEN_SECONDS = 30.0  # in which a token must be had that is accepted: longer than a clock stays wrong
NUMBERS = 10_000  # the largest quantity of one line
ABUNDANT = 1_000_000_000
SCARCE = 40
RESTOCK = 25
NO_ANSWER = (OSError, http.client.HTTPException)


class Account:
    """A user and the token that all of the user's connections share."""

    def __init__(self, email, password):
        self.token, self._lock = None, threading.Lock()
        self._credentials = {"email": email, "password": password}

    def renew(self, client, refused):
        """Log in again, once however many connections were refused the same token."""
        with self._lock:
            if self.token == refused:
                status, answer = client.insist("POST", "/users/login", self._credentials)
                if status != http.client.OK:
                    raise RuntimeError(f"no login: {status} {answer}")
                self.token = answer["access_token"]


class Shopper(Client):
    """A user at the gateway, who logs in again when the token has expired; counts what it is answered."""

    def __init__(self, url, account, answers=None):
        super().__init__(url)
        self.url, self.account, self.answers = url, account, Counter() if answers is None else answers
        if account.token is None:
            account.renew(self, None)
        self.token = account.token

    def again(self, answers=None):
        """The same user on another connection."""
        return Shopper(self.url, self.account, self.answers if answers is None else answers)

    def request(self, method, path, body=None, headers=None):
        """As Client.request; a token that is too old, or from a clock that has been set back since, is replaced."""
        deadline = time.monotonic() + TOKEN_SECONDS
        while True:
            try:
                status, answer = super().request(method, path, body, headers)
            except NO_ANSWER:
                self.answers["no answer"] += 1
                raise
            self.answers[f"{status} {answer.get('code', '')}".strip() if status >= 400 else str(status)] += 1
            if status != 401 or path == "/users/login" or time.monotonic() > deadline:
                return status, answer
            time.sleep(0.5)
            self.account.renew(self, self.token)
            self.token = self.account.token

    def insist(self, method, path, body=None, headers=None, patience=PATIENCE):
        """Return (status, body) of the first answer that is one; 0 when there is none within `patience` seconds."""
        deadline, tries = time.monotonic() + patience, 0
        while True:
            tries += 1
            try:
                status, answer = self.request(method, path, body, headers)
            except NO_ANSWER as error:
                status, answer = 0, {"code": type(error).__name__}
            in_use = status == 409 and answer.get("code") == "IDEMPOTENCY_KEY_IN_USE"
            if not (status in {0, 503, 504} or in_use) or time.monotonic() > deadline:
                return status, answer
            time.sleep(0.05 * min(tries, 10))


@dataclass
class Asked:
    """One order that a client asked for. Times are seconds of time.time()."""

    number: int
    key: str
    began: float
    status: int = 0
    answer: str = ""
    order_id: str | None = None
    tries: int = 0
    answered: float = 0.0
    done: set = field(default_factory=set)  # commands that were answered with a success


@dataclass
class Catalogue:
    """The products of a run. `units` and `thousands` carry the orders' numbers."""

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
    """Orders by `clients` connections at `rate` a second at most, all drawn from `chance`."""

    def __init__(self, customer, admin, *, clients, rate, chance):
        self.catalogue = make_catalogue(admin)
        self.answers, self.asked = Counter(), []
        self.restocked = Counter()  # product id: units that the admin was told to have added
        self.odd = []  # answers that no client should get
        self._customer, self._admin, self._chance, self._rate = customer, admin, chance, rate
        self._clients = clients
        self._lock, self._go, self._ended = threading.Lock(), threading.Event(), threading.Event()
        self._chores = deque()  # (due, command, Asked), in no particular order of time
        self._busy = 0
        self._threads = []

    def start(self):
        """Begin."""
        self._began, self._handed_out = time.monotonic(), 0
        jobs = [self._order] * self._clients + [self._do_chores] * 3 + [self._restock]
        self._threads = [threading.Thread(target=self._guard, args=[job], daemon=True) for job in jobs]
        for thread in self._threads:
            thread.start()
        self.resume()

    def pause(self, seconds):
        """Ask for nothing new, and wait until everything that was asked is answered. False if that takes too long."""
        self._go.clear()
        deadline = time.monotonic() + seconds
        while self._busy and time.monotonic() < deadline:
            time.sleep(0.05)
        return not self._busy

    def resume(self):
        """Go on."""
        with self._lock:
            self._began, self._handed_out = time.monotonic(), 0
        self._go.set()

    def stop(self):
        """End for good."""
        self._ended.set()
        self._go.set()
        for thread in self._threads:
            thread.join(timeout=20)

    @property
    def accepted(self):
        """The orders that were accepted so far."""
        return [asked for asked in list(self.asked) if asked.order_id]

    def _guard(self, job):
        """A client that gives up is a finding, not the end of the load."""
        try:
            job()
        except Exception as error:  # noqa: BLE001
            self.odd.append(f"a client gave up: {type(error).__name__}: {error}")

    # Orders

    def _order(self):
        client = self._customer.again(self.answers)
        while self._next_turn():
            with self._working():
                asked, body, plans = self._draw()
                self._place(client, asked, body)
                if asked.order_id:
                    self._plan(asked, plans)
        client.close()

    def _next_turn(self):
        """Wait for this client's turn, at the rate of the load. False when the load has ended."""
        while not self._ended.is_set():
            self._go.wait()
            with self._lock:
                if self._handed_out < (time.monotonic() - self._began) * self._rate:
                    self._handed_out += 1
                    return not self._ended.is_set()
            time.sleep(0.02)
        return False

    def _working(self):
        return _Counted(self)

    def _draw(self):
        """The next order: its record, its body, and what shall become of it."""
        with self._lock:
            chance, number = self._chance, len(self.asked) + 1
            asked = Asked(number, str(uuid4()), time.time())
            self.asked.append(asked)
            kind, plans = chance.random(), chance.random()
            products = {p["id"]: chance.randint(1, 3) for p in chance.sample(self.catalogue.selling, 2)}
            if kind < 0.12:
                products[self.catalogue.without_stock["id"]] = 1
            elif kind < 0.24:
                products[self.catalogue.too_dear["id"]] = 1
            elif kind < 0.44:
                products[chance.choice(self.catalogue.scarce)["id"]] = chance.randint(1, 2)
        products[self.catalogue.low["id"]] = number % NUMBERS + 1
        products[self.catalogue.high["id"]] = number // NUMBERS + 1
        return asked, {"items": [{"product_id": key, "quantity": count} for key, count in products.items()]}, plans

    def _place(self, client, asked, body):
        asked.status, answer, asked.tries, _ = place(client, body, asked.key, PATIENCE)
        asked.answered = time.time()
        if asked.status == 201:
            asked.order_id = answer["id"]
        else:
            asked.answer = str(answer)
            self.odd.append(f"POST /orders (key {asked.key}): {asked.status} {answer}")

    def _plan(self, asked, plans):
        """Some are cancelled at once, some a little later, some shipped, and some of those delivered."""
        now = time.monotonic()
        if plans < 0.10:
            self._chores.append((now, "cancel", asked))
        elif plans < 0.22:
            self._chores.append((now + plans * 30, "cancel", asked))  # 3 to 6.6 s: after the confirmation, as a rule
        elif plans < 0.30:
            self._chores.append((now + plans * 15, "ship", asked))
        elif plans < 0.34:  # both at once: one wins
            self._chores.append((now + 2, "ship", asked))
            self._chores.append((now + 2, "cancel", asked))

    # What happens to orders later

    def _do_chores(self):
        admin, customer = self._admin.again(self.answers), self._customer.again(self.answers)
        while not self._ended.is_set():
            self._go.wait()
            with self._working():
                chore = self._due_chore()
                if chore:
                    _, command, asked = chore
                    self._command(customer if command == "cancel" else admin, command, asked)
            if not chore:
                time.sleep(0.05)

    def _due_chore(self):
        """A chore that is due; the deque is short."""
        with self._lock, suppress(StopIteration):
            chore = next(one for one in self._chores if one[0] <= time.monotonic())
            self._chores.remove(chore)
            return chore
        return None

    def _command(self, client, command, asked):
        status, answer = client.insist("POST", f"/orders/{asked.order_id}/{command}")
        if status in {200, 202}:
            asked.done.add(command)
            if command == "ship" and self._chance.random() < 0.5:
                self._chores.append((time.monotonic() + 1, "deliver", asked))
        elif status != 409:  # 409: it came too late or too early, or its first answer was lost
            self.odd.append(f"POST /orders/{asked.order_id}/{command}: {status} {answer}")

    def _restock(self):
        """New units of what is scarce, now and then: each under a key, so that a repetition adds nothing."""
        admin = self._admin.again(self.answers)
        while not self._ended.wait(1.5):
            self._go.wait()
            with self._working():
                product = self._chance.choice(self.catalogue.scarce)["id"]
                status, answer = admin.insist(
                    "POST",
                    f"/inventory/{product}/adjustments",
                    {"delta": RESTOCK, "reason": "delivery"},
                    {"Idempotency-Key": str(uuid4())},
                )
                if status == 201:
                    self.restocked[product] += RESTOCK
                elif not self._ended.is_set():
                    self.odd.append(f"POST /inventory/{product}/adjustments: {status} {answer}")


class _Counted:
    """Counts who is under way, so that `pause` knows when nobody is."""

    def __init__(self, load):
        self._load = load

    def __enter__(self):
        with self._load._lock:
            self._load._busy += 1

    def __exit__(self, *_):
        with self._load._lock:
            self._load._busy -= 1
