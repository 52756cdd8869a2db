"""Messages that come again: up to ten times, in another order, long after, and when nobody remembers them.

A spy keeps every event of the run in a stream, a queue on the broker's disk that is read from any place as often as one
likes. Bound it early (`listen`): what was published before it is not in it.
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

SPY = "chaos.spy"
COPY_HEADER = "x-chaos-copy"  # ours, so that a copy is not copied again
SPY_ARGUMENTS = {"x-queue-type": "stream", "x-max-length-bytes": 500_000_000}
AT_ONCE = 200  # messages that the broker sends ahead
SAMPLE = 300  # messages that one strike takes from the stream
MOST_READ = 20 * SAMPLE  # most of them may be our own copies
MOST_TIMES = 10
DRAINED_WITHIN_SECONDS = 20.0


@contextmanager
def channel_of(arena):
    """A channel to the broker itself, past the proxies."""
    address = parse_url(arena.direct["AMQP_URI"])
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


def listen(arena):
    """Bind the spy; to repeat it changes nothing."""
    with channel_of(arena) as channel:
        _bind(channel)


def _bind(channel):
    channel.exchange_declare(EXCHANGE, "topic", durable=True, auto_delete=False)
    channel.queue_declare(SPY, durable=True, auto_delete=False, arguments=SPY_ARGUMENTS)
    channel.queue_bind(SPY, EXCHANGE, "#")


def heard(channel, chance, count):
    """Up to `count` events in a row, from anywhere in the run, oldest first, without our own copies."""
    channel.basic_qos(0, AT_ONCE, False)
    recorded = channel.queue_declare(SPY, passive=True).message_count
    begin = chance.randrange(max(1, recorded - count))
    found, seen = [], 0

    def take(message):
        nonlocal seen
        seen += 1
        channel.basic_ack(message.delivery_tag)
        if COPY_HEADER not in (message.headers or {}):
            found.append(message)

    tag = channel.basic_consume(SPY, callback=take, arguments={"x-stream-offset": begin})
    with suppress(TimeoutError):  # the end of the stream
        while len(found) < count and seen < MOST_READ:
            channel.connection.drain_events(timeout=1.0)
    channel.basic_cancel(tag)
    return found[:count]


def copy_of(message, *, new_id):
    """The message as its producer sent it; under a new id, it is the same fact that nobody has seen before."""
    properties = {
        name: value
        for name, value in message.properties.items()
        if name in {"content_type", "content_encoding", "type", "timestamp", "app_id", "correlation_id", "message_id"}
    }
    if new_id:
        properties["message_id"] = str(uuid4())
    headers = {name: value for name, value in (message.headers or {}).items() if name != "x-stream-offset"}
    return amqp.Message(message.body, delivery_mode=2, application_headers=headers | {COPY_HEADER: True}, **properties)


def everywhere(message):
    """(exchange, routing key) as its producer published it: to all who consume it."""
    return [(EXCHANGE, message.delivery_info["routing_key"])]


def to_each_handler(message):
    """(exchange, routing key) of each consumer's own queue."""
    event = EVENTS.get(message.delivery_info["routing_key"])
    return [("", queue_name(service, event)) for service in event.consumers] if event else []


@dataclass(frozen=True)
class Replay:
    """Events of the run are published again, each one to ten times, shuffled."""

    name: str
    where: object = everywhere
    new_id: bool = False
    forget: bool = False  # are the inboxes emptied before?

    def strike(self, arena, chance: random.Random):
        with channel_of(arena) as channel:
            _bind(channel)
            messages = heard(channel, chance, SAMPLE)
            if self.forget:
                forget(arena)
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
        return f"{self.name}: {len(messages)} events in {len(copies)} copies, {left} of them not yet taken"


def forget(arena):
    """Delete all that the inboxes remember, as their clean-up will one day."""
    for url in database_urls(arena).values():
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, connect_args={"connect_timeout": 5})
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("SET lock_timeout = '5s'"))
            connection.execute(sqlalchemy.text("DELETE FROM inbox"))


def database_urls(arena):
    """Each service's database, past the proxies."""
    return {
        name: arena.servers.postgres.url(name) for name in sorted({one for e in EVENTS.values() for one in e.consumers})
    }


def await_drained(channel):
    """Wait until the handlers have taken everything, a bounded time; returns how many messages are left."""
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
