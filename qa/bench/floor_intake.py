"""The floor's intake of orders: `python -m qa.bench.floor_intake <seconds>`.

Without an address it creates orders itself, in batches, while fewer than LIMIT are open, without HTTP. With
FLOOR_ADDRESS it is a minimal HTTP server: it stores all waiting requests in one transaction, responds, and publishes.
"""

import json
import os
import re
import select
import signal
import socket
import sys
import time
from itertools import cycle, islice

import psycopg2
from psycopg2.extras import Json, execute_values

from contracts.ids import new_id
from qa.bench.floor_bus import BATCH, Bus, event

LIMIT = 400  # open orders, as many as a fast machine decides in a few seconds
COUNT_SECONDS = 0.02
PRICE = "10.90"
USER = "01890000-0000-7000-8000-000000000000"
UNDER_WAY = """
    SELECT count(*) FROM orders WHERE status = 'CREATED'
    OR status = 'CONFIRMED' AND (stock_status <> 'COMMITTED' OR payment_status <> 'CAPTURED')
"""
NEW_ORDERS = """
    INSERT INTO orders (id, user_id, status, total_amount, currency, stock_status, payment_status, version, deadline_at)
    VALUES %s
"""
ORDER = "(%s, %s, 'CREATED', %s, 'TRY', 'PENDING', 'PENDING', 1, clock_timestamp() + interval '30 seconds')"
ITEMS = "INSERT INTO order_items (order_id, line, product_id, product_sku, quantity, price_snapshot) VALUES %s"
KEYS = "INSERT INTO idempotency_keys (actor, method, key, fingerprint, answer) VALUES %s ON CONFLICT DO NOTHING"
TIMELINE = "INSERT INTO timeline (order_id, event, event_id, service, data) VALUES %s"
LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
KEY = re.compile(rb"\r\nidempotency-key: *(\S+)", re.IGNORECASE)


class Intake:
    """Stores batches of orders, each in one transaction, and publishes them."""

    def __init__(self, bus):
        self._bus = bus

    def take(self, requested):
        """Store orders of (idempotency key, items); returns (responses, events, outbox rows)."""
        orders, items, timeline, keys, events, responses = [], [], [], [], [], []
        for key, wanted in requested:
            order_id = str(new_id())
            lines = [one | {"product_sku": "FLOOR", "price_snapshot": PRICE} for one in wanted]
            total = f"{float(PRICE) * sum(one['quantity'] for one in wanted):.2f}"
            facts = {"user_id": USER, "total_amount": total, "currency": "TRY", "items": lines}
            created = event("order.created", order_id, **facts)
            response = {"id": order_id, "status": "CREATED", **facts}
            orders.append((order_id, USER, total))
            items += [
                (order_id, number, one["product_id"], "FLOOR", one["quantity"], PRICE)
                for number, one in enumerate(lines)
            ]
            timeline.append((order_id, "order.created", created[0], "orders", Json(facts)))
            keys.append((USER, "create_order", key, key, Json(response)))
            events.append(created)
            responses.append(response)
        with self._bus.database, self._bus.database.cursor() as cursor:
            execute_values(cursor, NEW_ORDERS, orders, template=ORDER)
            execute_values(cursor, ITEMS, items)
            execute_values(cursor, TIMELINE, timeline)
            execute_values(cursor, KEYS, keys)
            rows = self._bus.write(cursor, events)
        return responses, events, rows

    def publish(self, events, rows):
        """Publish the events that `take` has stored."""
        self._bus.relay(events, rows)

    def on_idle(self):
        """Delete confirmed events while no request waits."""
        self._bus.sweep()

    def open_orders(self):
        """The number of orders that are not settled yet."""
        with self._bus.database, self._bus.database.cursor() as cursor:
            cursor.execute(UNDER_WAY)
            return cursor.fetchone()[0]


def feed(intake, products, seconds):
    """Create orders for `seconds`, with at most LIMIT of them open."""
    pairs = cycle([(one, two) for number, one in enumerate(products) for two in products[number + 1 :]])
    end = time.time() + seconds
    while time.time() < end:
        room = min(BATCH, LIMIT - intake.open_orders())
        if room < BATCH // 2:
            time.sleep(COUNT_SECONDS)
            continue
        requested = [
            (str(new_id()), [{"product_id": one, "quantity": 1} for one in pair]) for pair in islice(pairs, room)
        ]
        _responses, events, rows = intake.take(requested)
        intake.publish(events, rows)


class Front:
    """A minimal HTTP/1.1 server over epoll: only POST, with keep-alive, in batches."""

    def __init__(self, port):
        self._listener = socket.create_server(("127.0.0.1", port), backlog=512)
        self._listener.setblocking(False)
        self._poll = select.epoll()
        self._poll.register(self._listener, select.EPOLLIN)
        self._connections = {}  # by file descriptor: [socket, bytes]

    def serve(self, intake, is_over):
        """Serve requests until `is_over()`."""
        while not is_over():
            waiting = [one for descriptor, _ in self._poll.poll(0.2) for one in self._receive(descriptor)]
            if not waiting:
                intake.on_idle()
            for first in range(0, len(waiting), BATCH):
                self._respond(intake, waiting[first : first + BATCH])

    def _receive(self, descriptor):
        if descriptor == self._listener.fileno():
            connection, _ = self._listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections[connection.fileno()] = [connection, b""]
            self._poll.register(connection, select.EPOLLIN)
            return
        entry = self._connections[descriptor]
        received = entry[0].recv(65536)
        if not received:
            del self._connections[descriptor]
            entry[0].close()
            return
        entry[1] += received
        head, separator, body = entry[1].partition(b"\r\n\r\n")
        if separator and len(body) >= int(LENGTH.search(head).group(1)):
            entry[1] = b""
            yield entry[0], KEY.search(head).group(1).decode(), json.loads(body)["items"]

    def _respond(self, intake, waiting):
        responses, events, rows = intake.take([(key, items) for _, key, items in waiting])
        for (connection, _, _), response in zip(waiting, responses, strict=True):
            body = json.dumps(response).encode()
            head = f"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
        intake.publish(events, rows)


def main(seconds):
    """Create orders for `seconds` and print the times, or serve until SIGTERM."""
    over = []
    signal.signal(signal.SIGTERM, lambda *_: over.append(True))
    bus = Bus(os.environ["AMQP_URI"], psycopg2.connect(os.environ["FLOOR_DSN"]), service="orders")
    intake = Intake(bus)
    address = os.environ.get("FLOOR_ADDRESS")
    front = Front(int(address.rpartition(":")[2])) if address else None
    print("ready", flush=True)
    began, spent = time.time(), time.process_time()
    if front:
        front.serve(intake, lambda: bool(over))
    else:
        feed(intake, json.loads(os.environ["FLOOR_PRODUCTS"]), seconds)
    bus.sweep()
    print(json.dumps({"began": began, "ended": time.time(), "cpu_seconds": time.process_time() - spent}), flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]))
