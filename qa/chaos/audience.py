"""The receivers of news about the orders of a run: customers with mails and webhooks, and clients of the streams.

audience = Audience(sandbox, seed)      # registers the customers, who place the orders of the load
audience.start(load)                    # the streams
audience.checks(seconds)                # while the load pauses and the suite is at rest
audience.counts()
audience.stop()
"""

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import itemgetter
from uuid import uuid4

from deploy.local.process import wait_until
from qa.chaos import told
from qa.chaos.event_stream import EventStream
from qa.chaos.told import Customer, OrderEvent
from qa.chaos.user import Account, User
from qa.chaos.verdict import read
from qa.support.client import CUSTOMER
from qa.support.consistency import Check

PASSWORD = "a long password of theirs"
# The events that the endpoint of each customer receives; None: no endpoint.
SUBSCRIPTIONS = (("*",), ("order.*",), ("order.confirmed", "order.cancelled", "payment.refunded"), None, None)
FOLLOWERS = 4  # clients that hold the stream of an order at a time
ALL_EVENTS = 2  # clients of the stream of all events
FOLLOWED_SECONDS = (0.5, 5.0)
BEGIN_SECONDS = 60.0
CHECK_PAUSE_SECONDS = 0.3
ID, EVENT_ID = itemgetter("id"), itemgetter("event_id")
STOP_SECONDS = 10.0
EVENTS = """
    SELECT orders.user_id, timeline.order_id, timeline.event, timeline.event_id
    FROM timeline JOIN orders ON orders.id = timeline.order_id ORDER BY timeline.id
"""
NOTIFICATIONS = """
    SELECT id FROM notifications
    WHERE user_id = :user AND in_app AND (xact, id) > (CAST(:xact AS bigint), CAST(:id AS uuid))
"""


class Audience:
    """The customers and the clients of a run."""

    def __init__(self, sandbox, seed):
        self._sandbox, self._chance = sandbox, random.Random(seed)
        self.users, self.customers = [], []
        self._orders, self._lists, self._all = {}, {}, []
        self._load, self._threads = None, []
        self._ended, self._resting = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._problems = []
        self._register_all()

    # Customers

    def _register_all(self):
        user = self._sandbox.customer
        self._add(user, user.must("GET", "/users/me"), None)
        for number, events in enumerate(SUBSCRIPTIONS):
            account = Account(f"chaos-{number}-{uuid4().hex[:8]}@example.com", PASSWORD)
            session = self._sandbox.admin.must("POST", "/users/register", account.credentials)
            account.token = session["access_token"]
            self._add(User(self._sandbox.url, account), session["user"], events)

    def _add(self, user, profile, events):
        path = f"/{len(self.users)}" if events else ""
        if events:
            body = {"url": self._sandbox.receivers.url + path, "events": events}
            webhook = user.must("POST", "/webhooks", body, {"Idempotency-Key": str(uuid4())})
            self._sandbox.receivers.expect(path, webhook["secret"])
        self.users.append(user)
        self.customers.append(Customer(profile["id"], profile["email"], path, tuple(events or ())))

    # Streams

    def start(self, load):
        """Open the streams. Those that show everything from now on have begun when this returns."""
        self._load = load
        for user, customer in zip(self.users, self.customers, strict=True):
            if customer.path or customer.email == CUSTOMER:
                self._lists[customer.id] = self._stream(user, "/notifications/stream", ID)
        self._all = [self._stream(self._sandbox.admin, "/admin/events", EVENT_ID) for _ in range(ALL_EVENTS)]
        constant = [*self._lists.values(), *self._all]
        jobs = [*(self._follow_on(stream) for stream in constant), *[self._follow_orders] * FOLLOWERS]
        self._threads = [threading.Thread(target=self._guard, args=[job], daemon=True) for job in jobs]
        for thread in self._threads:
            thread.start()
        if not wait_until(lambda: all(stream.first_id for stream in constant), seconds=BEGIN_SECONDS):
            raise TimeoutError("the streams have not begun")

    def stop(self):
        """End all clients."""
        self._ended.set()
        deadline = time.monotonic() + STOP_SECONDS
        for thread in self._threads:
            thread.join(timeout=max(0.0, deadline - time.monotonic()))

    def _stream(self, user, path, name_of):
        return EventStream(user, path, name_of, random.Random(self._chance.random()))

    def _guard(self, job):
        try:
            job()
        except Exception as error:  # noqa: BLE001  (of the checks, and not of this thread alone)
            self._problems.append(f"a client of a stream gave up: {type(error).__name__}: {error}")

    def _follow_on(self, stream):
        return lambda: stream.follow(self._ended.is_set)

    def _follow_orders(self):
        """Follow one of the latest orders after the other, each for some seconds."""
        while not self._ended.is_set():
            stream = None if self._resting.is_set() else self._next_order()
            if stream is None:
                self._ended.wait(0.1)
                continue
            with stream.lock:
                stream.follow(partial(self._has_followed, time.monotonic() + stream.chance.uniform(*FOLLOWED_SECONDS)))

    def _has_followed(self, until):
        return time.monotonic() > until or self._ended.is_set() or self._resting.is_set()

    def _next_order(self):
        """The stream of the latest order, None if a client has followed it already."""
        with self._lock:
            for order in reversed(self._load.requests):
                if order.order_id in self._orders:
                    return None
                if order.order_id:
                    path = f"/orders/{order.order_id}/events"
                    stream = self._orders[order.order_id] = self._stream(order.customer, path, EVENT_ID)
                    return stream
        return None

    # The verdict

    def checks(self, seconds):
        """Compare what was received with the orders; wait for what is missing, for at most so many seconds."""
        deadline = time.monotonic() + seconds
        self._resting.set()
        try:
            events = self._events()
            self._complete(events, deadline)
            while True:
                found = self._compare(events)
                if not any(one.ids for one in found) or time.monotonic() > deadline:
                    return found
                time.sleep(CHECK_PAUSE_SECONDS)
        finally:
            self._resting.clear()

    def _complete(self, events, deadline):
        """Read on where the stream of an order lacks the end of its timeline, from the last id."""
        lengths = Counter(one.order for one in events)

        def read_on(order, stream):
            with stream.lock:
                stream.follow(lambda: len(stream.entries) >= lengths[order] or time.monotonic() > deadline)

        with ThreadPoolExecutor(FOLLOWERS) as pool:
            behind = [one for one in list(self._orders.items()) if len(one[1].entries) < lengths[one[0]]]
            list(pool.map(lambda one: read_on(*one), behind))

    def _compare(self, events):
        received = self._sandbox.receivers
        return [
            *told.webhook_checks(events, self.customers, list(received.webhooks)),
            *told.mail_checks(events, self.customers, list(received.mails)),
            told.order_stream_check(events, dict(self._orders)),
            told.list_stream_check({user: self._notifications(user) for user in self._lists}, self._lists),
            *told.all_events_checks(events, self._all),
            Check("streams: no response that a client should not get", self._unexpected()),
        ]

    def _events(self):
        rows = read(self._sandbox.database_urls["orders"], EVENTS)
        return [
            OrderEvent(str(row["order_id"]), str(row["user_id"]), row["event"], str(row["event_id"])) for row in rows
        ]

    def _notifications(self, user):
        xact, _, last = self._lists[user].first_id.partition("-")
        rows = read(self._sandbox.database_urls["notifications"], NOTIFICATIONS, user=user, xact=xact, id=last)
        return {str(row["id"]) for row in rows}

    def _unexpected(self):
        streams = [*self._orders.values(), *self._lists.values(), *self._all]
        return [*self._problems, *(problem for stream in streams for problem in stream.unexpected)]

    def counts(self):
        """Return what was received since the beginning, as text by name."""
        webhooks = Counter((one.path, one.id) for one in self._sandbox.receivers.webhooks if not one.error)
        mails = Counter((one.to, one.order, one.subject) for one in self._sandbox.receivers.mails if one.order)
        return {
            "webhooks": f"{len(webhooks)} in {webhooks.total()} attempts, {_repeated(webhooks)} of them repeated",
            "mails": f"{len(mails)}, {_repeated(mails)} of them twice",
            "streams of orders": _stream_counts(self._orders.values()),
            "streams of notifications": _stream_counts(self._lists.values()),
            "streams of all events": _stream_counts(self._all),
        }


def _repeated(counts):
    return sum(count > 1 for count in counts.values())


def _stream_counts(streams):
    """The number of streams, of their connections and events, and how many events came at two positions."""
    streams = list(streams)
    twice = sum(_repeated(Counter(name for _, name in stream.entries)) for stream in streams)
    connections, events = sum(one.connections for one in streams), sum(len(one.entries) for one in streams)
    return f"{len(streams)}, {connections} connections, {events} events, {twice} of them twice"
