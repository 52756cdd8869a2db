"""Measures the suite's outbox relay: the rate at which it empties an outbox, and the delay from commit to broker."""

import contextlib
import threading
import time
import uuid

from contracts.events import EXCHANGE, queue_name
from contracts.users import UserRegistered
from qa.bench.floor_bus import connect
from qa.bench.orders import connected, percentile

EMPTY_SECONDS = 60.0
POLL_SECONDS = 0.01
FILL = """
    INSERT INTO outbox (message_id, event_type, body, correlation_id, headers)
    SELECT gen_random_uuid(), 'user.registered',
           json_build_object('user_id', gen_random_uuid(), 'email', 'bench@example.com'), gen_random_uuid(),
           '{"x-request-id": "bench", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}'
    FROM generate_series(1, %s)
"""
COMMITTED = """
    SELECT event_id::text, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float FROM timeline
    WHERE service = 'orders' AND at >= to_timestamp(%s)
"""


def relayed_per_second(shop, rows):
    """Fill the outbox of users with events for a queue without a consumer, and return the rate at which it empties.

    The time starts after the first batch, so the delay until the relay starts does not count. The queue is a quorum
    queue; messages are persistent and confirmed. The published events are purged, because they describe no real user.
    """
    shop.suite.stop_service("notifications")
    try:
        with connected(shop.bench_servers.database_urls["users"]) as users:
            users.execute(FILL, (rows,))
            deadline = time.monotonic() + EMPTY_SECONDS
            while (left := _count(users)) == rows and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
            first = time.monotonic()
            while _count(users) and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
            if _count(users):
                raise RuntimeError(f"the relay did not empty the outbox within {EMPTY_SECONDS:.0f} s")
            rate = left / (time.monotonic() - first)
        with contextlib.closing(connect(shop.bench_servers.amqp_uri)) as connection:
            arrived = connection.channel().queue_purge(queue_name("notifications", UserRegistered))
        if arrived != rows:
            raise RuntimeError(f"{rows} events were relayed, {arrived} arrived")
    finally:
        shop.suite.start_service("notifications")
        shop.suite.wait_ready(60)
    return rate


def _count(users):
    users.execute("SELECT count(*) FROM outbox")
    return users.fetchone()[0]


class Listener:
    """Records the arrival time of every event of orders, over its own queue, without acks."""

    def __init__(self, amqp_uri):
        self._connection = connect(amqp_uri)
        channel = self._connection.channel()
        queue = channel.queue_declare(f"bench.{uuid.uuid4()}", exclusive=True).queue
        channel.queue_bind(queue, EXCHANGE, "order.*")
        channel.basic_consume(queue, no_ack=True, callback=self._record)
        self._since = time.time()
        self._arrivals = {}
        self._over = False
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_error):
        self._over = True
        self._thread.join()
        self._connection.close()

    def _record(self, message):
        self._arrivals.setdefault(message.properties["message_id"], time.time())

    def _listen(self):
        while not self._over:
            with contextlib.suppress(TimeoutError):
                self._connection.drain_events(timeout=0.2)

    def commit_to_broker(self, orders_url):
        """Seconds from the commit of each event to its arrival here, shortly after its arrival at the broker."""
        with connected(orders_url) as orders:
            orders.execute(COMMITTED, (self._since,))
            return [self._arrivals[one] - at for one, at in orders.fetchall() if one in self._arrivals]


def commit_to_broker_p99(shop, seconds, rate):
    """Place orders at `rate`; returns (p99 in milliseconds, Loaded)."""
    with Listener(shop.bench_servers.amqp_uri) as listener:
        loaded, _cpu = shop.place(seconds, rate=rate)
    seconds_taken = listener.commit_to_broker(shop.bench_servers.database_urls["orders"])
    if not seconds_taken:
        raise RuntimeError("no event arrived")
    return 1000 * percentile(seconds_taken, 0.99), loaded
