"""The floor's messaging: py-amqp in one thread, with batches and pipelined confirms."""

import json
import time
from collections import deque

import amqp
from kombu.utils.url import parse_url
from psycopg2.extras import Json, execute_values

from contracts.ids import new_id

EXCHANGE = "floor.events"
BATCH = 50
CONFIRM_SECONDS = 20.0
QUORUM = {"x-queue-type": "quorum", "x-delivery-limit": 20}
CONSUMERS = {  # the consumers of the contract for a confirmed order
    "order.created": ("inventory", "payments", "notifications"),
    "inventory.stock_reserved": ("orders",),
    "payment.authorized": ("orders",),
    "order.confirmed": ("inventory", "payments", "notifications"),
    "inventory.stock_committed": ("orders",),
    "payment.captured": ("orders",),
}
OUTBOX = """
    INSERT INTO outbox (message_id, event_type, body, correlation_id, headers) VALUES %s RETURNING id
"""
INBOX = "INSERT INTO inbox (message_id, handler) VALUES %s ON CONFLICT DO NOTHING RETURNING message_id::text"


def queue_name(service, event):
    """The name of a role's queue for an event."""
    return f"floor.{service}.{event}"


def connect(uri):
    """Open a connection to the broker."""
    address = parse_url(uri)
    connection = amqp.Connection(
        host=f"{address['hostname']}:{address['port']}",
        userid=address["userid"],
        password=address["password"],
        virtual_host=address["virtual_host"] or "/",
        heartbeat=0,
    )
    connection.connect()
    return connection


def declare(channel):
    """Declare the exchange and a quorum queue for each consumer of each event, and purge the queues."""
    channel.exchange_declare(EXCHANGE, "topic", durable=True, auto_delete=False)
    for event, services in CONSUMERS.items():
        for service in services:
            queue = queue_name(service, event)
            channel.queue_declare(queue, durable=True, auto_delete=False, arguments=QUORUM)
            channel.queue_bind(queue, EXCHANGE, event)
            channel.queue_purge(queue)


class Bus:
    """One role's connections to the broker and to its database."""

    def __init__(self, uri, database, events=(), service=""):
        self.database = database
        self._service = service
        self._connection = connect(uri)
        self._out = self._connection.channel()
        self._out.confirm_select()
        self._out.events["basic_ack"].add(self._on_ack)
        self._sent = 0
        self._unconfirmed = set()
        self._confirmed_rows = []  # outbox rows to delete
        self._waiting = {}
        for event in events:
            self._consume(event)

    def _consume(self, event):
        channel, messages = self._connection.channel(), deque()
        channel.basic_qos(0, 2 * BATCH, False)
        channel.basic_consume(queue_name(self._service, event), callback=messages.append)
        self._waiting[event] = (channel, messages)

    def serve(self, handlers, is_over=lambda: False):
        """Handle messages, a batch of one queue at a time, until `is_over()`."""
        while not is_over():
            if not self._drain(0.0 if any(messages for _, messages in self._waiting.values()) else 0.2):
                self.sweep()
            for event, (channel, messages) in self._waiting.items():
                if messages:
                    batch = [messages.popleft() for _ in range(min(BATCH, len(messages)))]
                    self._handle(event, batch, handlers[event])
                    channel.basic_ack(batch[-1].delivery_tag, multiple=True)

    def _drain(self, seconds):
        """Read all available frames, and wait for the first one; returns whether there was any."""
        received = False
        try:
            while True:
                self._connection.drain_events(timeout=0.0 if received else seconds)
                received = True
        except (TimeoutError, BlockingIOError):
            return received

    def _handle(self, event, batch, handle):
        """Run one transaction (inbox, effect, outbox), and relay its events."""
        with self.database, self.database.cursor() as cursor:
            handler = f"on_{event}"
            fresh = {
                row[0]
                for row in execute_values(
                    cursor, INBOX, [(m.properties["message_id"], handler) for m in batch], fetch=True
                )
            }
            unseen = [message for message in batch if message.properties["message_id"] in fresh]
            bodies = [(json.loads(message.body), message.properties["message_id"]) for message in unseen]
            events = handle(cursor, event, bodies) if bodies else []
            rows = self.write(cursor, events)
        self.relay(events, rows)

    def write(self, cursor, events):
        """Add events to the outbox, and delete the confirmed ones; returns the ids of the new rows."""
        self.sweep(cursor)
        if not events:
            return []
        rows = [(one[0], one[1], one[2], one[3], Json({"x-request-id": one[0]})) for one in events]
        return [row[0] for row in execute_values(cursor, OUTBOX, rows, fetch=True)]

    def relay(self, events, rows):
        """Publish committed events, and wait for all confirms."""
        for message_id, event, body, correlation_id in events:
            message = amqp.Message(
                body,
                content_type="application/json",
                delivery_mode=2,
                message_id=message_id,
                type=event,
                app_id=self._service,
                correlation_id=correlation_id,
                timestamp=int(time.time()),
                application_headers={"x-request-id": message_id},
            )
            self._sent += 1
            self._unconfirmed.add(self._sent)
            self._out.basic_publish(message, EXCHANGE, event, mandatory=True)
        deadline = time.monotonic() + CONFIRM_SECONDS
        while self._unconfirmed:
            self._connection.drain_events(timeout=deadline - time.monotonic())
        self._confirmed_rows += rows

    def sweep(self, cursor=None):
        """Delete confirmed events from the outbox, in the next transaction if there is one, otherwise in their own."""
        if not self._confirmed_rows:
            return
        rows, self._confirmed_rows = self._confirmed_rows, []
        if cursor is not None:
            cursor.execute("DELETE FROM outbox WHERE id = ANY(%s)", (rows,))
            return
        with self.database, self.database.cursor() as own:
            own.execute("DELETE FROM outbox WHERE id = ANY(%s)", (rows,))

    def _on_ack(self, tag, multiple):
        self._unconfirmed -= {one for one in self._unconfirmed if one <= tag} if multiple else {tag}


def event(name, order_id, **facts):
    """Return an event for the outbox: (message id, name, body, order id)."""
    return str(new_id()), name, json.dumps({"order_id": order_id, **facts}), order_id
