"""Duplicate event faults: old events are published again, up to ten times, shuffled, also after inboxes were emptied.

A RabbitMQ stream records every event of the run; it can be read repeatedly from any offset. Call `start_recording`
early: the stream contains only events that are published after it.
"""

import random
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from uuid import uuid4

import amqp
import sqlalchemy
from kombu.utils.url import parse_url

from contracts.events import EVENTS, EXCHANGE, queue_name

RECORDER = "chaos.recorder"
COPY_HEADER = "x-chaos-copy"  # marks copies, so that they are not copied again
RECORDER_ARGUMENTS = {"x-queue-type": "stream", "x-max-length-bytes": 500_000_000}
PREFETCH = 200
SAMPLE = 300  # messages that one fault takes from the stream
MOST_READ = 20 * SAMPLE  # most of the messages may be copies
MOST_TIMES = 10
DRAINED_WITHIN_SECONDS = 20.0


@contextmanager
def channel_of(sandbox):
    """A channel to the broker, without the proxy."""
    address = parse_url(sandbox.direct["AMQP_URI"])
    connection = amqp.Connection(
        host=f"{address['hostname']}:{address['port']}",
        userid=address["userid"],
        password=address["password"],
        heartbeat=0,
        connect_timeout=5,
        read_timeout=10,
        write_timeout=10,
    )
    connection.connect()
    try:
        yield connection.channel()
    finally:
        with suppress(OSError, amqp.AMQPError):
            connection.close()


def start_recording(sandbox):
    """Declare and bind the stream; idempotent."""
    with channel_of(sandbox) as channel:
        _bind(channel)


def _bind(channel):
    channel.exchange_declare(EXCHANGE, "topic", durable=True, auto_delete=False)
    channel.queue_declare(RECORDER, durable=True, auto_delete=False, arguments=RECORDER_ARGUMENTS)
    channel.queue_bind(RECORDER, EXCHANGE, "#")


def recorded_events(channel, chance, count):
    """Return up to `count` consecutive events from a random offset of the stream, without copies."""
    channel.basic_qos(0, PREFETCH, False)
    recorded = channel.queue_declare(RECORDER, passive=True).message_count
    begin = chance.randrange(max(1, recorded - count))
    found, seen = [], 0

    def take(message):
        nonlocal seen
        seen += 1
        channel.basic_ack(message.delivery_tag)
        if COPY_HEADER not in (message.headers or {}):
            found.append(message)

    tag = channel.basic_consume(RECORDER, callback=take, arguments={"x-stream-offset": begin})
    with suppress(TimeoutError):  # the end of the stream
        while len(found) < count and seen < MOST_READ:
            channel.connection.drain_events(timeout=1.0)
    channel.basic_cancel(tag)
    return found[:count]


def copy_of(message, *, new_id):
    """Return the message as its producer sent it; with `new_id`, under a message id that no inbox contains."""
    properties = {
        name: value
        for name, value in message.properties.items()
        if name in {"content_type", "content_encoding", "type", "timestamp", "app_id", "correlation_id", "message_id"}
    }
    if new_id:
        properties["message_id"] = str(uuid4())
    headers = {name: value for name, value in (message.headers or {}).items() if name != "x-stream-offset"}
    return amqp.Message(message.body, delivery_mode=2, application_headers=headers | {COPY_HEADER: True}, **properties)


def to_exchange(message):
    """(exchange, routing key) of the event: a copy goes to all its consumers."""
    return [(EXCHANGE, message.delivery_info["routing_key"])]


def to_each_handler(message):
    """(exchange, routing key) of each consumer's own queue."""
    event = EVENTS.get(message.delivery_info["routing_key"])
    return [("", queue_name(service, event)) for service in event.consumers] if event else []


@dataclass(frozen=True)
class Replay:
    """Publish old events again, each one to ten times, shuffled."""

    name: str
    where: object = to_exchange
    new_id: bool = False
    forget: bool = False  # empty the inboxes first

    def inject(self, sandbox, chance: random.Random):
        with channel_of(sandbox) as channel:
            _bind(channel)
            messages = recorded_events(channel, chance, SAMPLE)
            if self.forget:
                empty_inboxes(sandbox)
            copies = [
                (copy_of(message, new_id=self.new_id), exchange, routing_key)
                for message in messages
                for exchange, routing_key in self.where(message)
                for _ in range(chance.randint(1, MOST_TIMES))
            ]
            chance.shuffle(copies)
            for copy, exchange, routing_key in copies:
                channel.basic_publish(copy, exchange, routing_key)
            left = await_drained(channel)
        return f"{self.name}: {len(messages)} events in {len(copies)} copies, {left} of them still in queues"


def empty_inboxes(sandbox):
    """Delete all inbox rows, as the clean-up does with old ones."""
    for url in database_urls(sandbox).values():
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, connect_args={"connect_timeout": 5})
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("SET lock_timeout = '5s'"))
            connection.execute(sqlalchemy.text("DELETE FROM inbox"))


def database_urls(sandbox):
    """Each service's database, without the proxies."""
    return {
        name: sandbox.servers.postgres.url(name)
        for name in sorted({one for e in EVENTS.values() for one in e.consumers})
    }


def await_drained(channel):
    """Wait until the handlers' queues are empty, for a bounded time; returns the number of messages left."""
    queues = [queue_name(service, event) for event in EVENTS.values() for service in event.consumers]
    deadline = time.monotonic() + DRAINED_WITHIN_SECONDS
    while True:
        left = sum(channel.queue_declare(queue, passive=True).message_count for queue in queues)
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.2)


FAULTS = [
    Replay("events come again, shuffled"),
    Replay("events come again to each handler's queue", where=to_each_handler),
    Replay("events come again under new ids", new_id=True),
    Replay("events come again to each handler's queue under new ids", where=to_each_handler, new_id=True),
    Replay("events come again after the inboxes were emptied", forget=True),
]
