"""The connections to RabbitMQ: one that a service listens on, and one on which publishing is confirmed.

Both reconnect by themselves, with growing and jittered pauses.
"""

import logging
import random
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import amqp
import eventlet
from amqp.exceptions import AMQPError
from eventlet.event import Event as Signal
from eventlet.semaphore import Semaphore
from kombu.utils.url import parse_url
from nameko import config
from nameko.extensions import SharedExtension

from contracts.errors import ServiceUnavailable
from extensions import topology

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 20
CONNECT_TIMEOUT_SECONDS = 5
CONFIRM_TIMEOUT_SECONDS = 10
SETUP_TIMEOUT_SECONDS = 15
# A zombie or a dead peer is noticed by TCP as well, not only by heartbeats.
SOCKET_SETTINGS = {
    socket.TCP_USER_TIMEOUT: 15_000,
    socket.TCP_KEEPIDLE: 10,
    socket.TCP_KEEPINTVL: 5,
    socket.TCP_KEEPCNT: 3,
}

CONNECTION_ERRORS = (AMQPError, OSError, EOFError)


class BrokerUnavailable(ServiceUnavailable):
    """RabbitMQ cannot be reached, or did not confirm; nothing is known to have been sent."""

    code, status, detail = "SERVICE_UNAVAILABLE", 503, "The message broker is unavailable. Try again shortly."


class Backoff:
    """Growing, jittered pauses: `first` seconds doubling up to `longest`, each shortened by up to half."""

    def __init__(self, first: float = 0.25, longest: float = 10.0) -> None:
        self.first, self.longest, self._next = first, longest, first

    def reset(self) -> None:
        """Begin again with the shortest pause."""
        self._next = self.first

    def next_pause(self) -> float:
        """Return the seconds to wait before the next try."""
        pause, self._next = self._next, min(self._next * 2, self.longest)
        return pause * random.uniform(0.5, 1.0)  # noqa: S311  (jitter needs no cryptography)


class SharedConnection(amqp.Connection):
    """A connection that one greenlet reads while others write.

    py-amqp's publish looks for a `connection.blocked` before it writes, by reading from the socket: in a second
    greenlet that steals frames from the reader. Without the capability it does not, and a blocked broker is noticed by
    deadlines.
    """

    negotiate_capabilities = {  # noqa: RUF012  (py-amqp's own way)
        "consumer_cancel_notify": True,
        "connection.blocked": False,
        "authentication_failure_close": True,
    }


def connect(heartbeat: int) -> amqp.Connection:
    """Return an open connection to the broker of the configuration."""
    address = parse_url(config["AMQP_URI"])
    connection = SharedConnection(
        host=f"{address['hostname']}:{address['port'] or 5672}",
        userid=address["userid"] or "guest",
        password=address["password"] or "guest",
        virtual_host=address["virtual_host"] or "/",
        heartbeat=heartbeat,
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        socket_settings=SOCKET_SETTINGS,
    )
    connection.connect()
    return connection


@dataclass(slots=True)
class Outgoing:
    """A message on its way out. `message_id` is what a returned message is recognised by."""

    exchange: str
    routing_key: str
    body: str
    message_id: str
    mandatory: bool = True
    event_type: str | None = None
    app_id: str | None = None
    correlation_id: str | None = None
    headers: dict[str, Any] = field(default_factory=dict)

    def to_amqp(self) -> amqp.Message:
        """Build the persistent AMQP message."""
        properties = {
            "message_id": self.message_id,
            "type": self.event_type,
            "app_id": self.app_id,
            "correlation_id": self.correlation_id,
            "timestamp": int(time.time()),
        }
        return amqp.Message(
            self.body,
            content_type="application/json",
            content_encoding="utf-8",
            delivery_mode=2,
            application_headers=self.headers,
            **{name: value for name, value in properties.items() if value is not None},
        )


class ConfirmedPublisher(SharedExtension):
    """Publishes persistent messages and returns only when the broker has taken responsibility for them.

    A connection of its own, opened when it is first needed. One batch at a time.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = Semaphore(1)
        self._connection: Any = None
        self._channel: Any = None
        self._unconfirmed: set[int] = set()
        self._refused: set[int] = set()
        self._returned: set[str] = set()

    def publish(self, messages: Sequence[Outgoing]) -> set[str]:
        """Publish all of `messages` and wait for their confirms.

        Returns the message ids that no queue took (returned or refused). Raises BrokerUnavailable when the
        connection failed: any of the messages may or may not have arrived, so publish them all again.
        """
        with self._lock:
            try:
                return self._publish(messages)
            except CONNECTION_ERRORS as error:
                self._drop()
                raise BrokerUnavailable from error
            except BaseException:
                # Cut off half-way (a deadline, a kill): confirms of this batch must not be taken for the next one's.
                self._drop()
                raise

    def _publish(self, messages: Sequence[Outgoing]) -> set[str]:
        channel = self._open_channel()
        self._unconfirmed.clear()
        self._refused.clear()
        self._returned.clear()
        tags: dict[int, str] = {}
        for message in messages:
            self._published += 1
            tags[self._published] = message.message_id
            self._unconfirmed.add(self._published)
            channel.basic_publish(message.to_amqp(), message.exchange, message.routing_key, mandatory=message.mandatory)
        self._await_confirms()
        return self._returned | {tags[tag] for tag in self._refused}

    def _await_confirms(self) -> None:
        deadline = time.monotonic() + CONFIRM_TIMEOUT_SECONDS
        while self._unconfirmed:
            left = deadline - time.monotonic()
            if left <= 0:
                message = "the broker did not confirm in time"
                raise TimeoutError(message)
            self._connection.drain_events(timeout=left)

    def _open_channel(self) -> amqp.Channel:
        if self._channel is None or not self._connection.connected:
            self._drop()
            # No heartbeat: it may lie idle for long, and a dead connection is found by the next publish.
            self._connection = connect(heartbeat=0)
            channel = self._connection.channel()
            topology.declare(channel)
            channel.confirm_select()
            channel.events["basic_ack"].add(self._on_ack)
            channel.events["basic_nack"].add(self._on_nack)
            channel.events["basic_return"].add(self._on_return)
            self._published = 0
            self._channel = channel
        return self._channel

    def _on_ack(self, tag: int, multiple: bool) -> None:
        self._settle(tag, multiple)

    def _on_nack(self, tag: int, multiple: bool) -> None:
        self._refused |= self._settle(tag, multiple)

    def _settle(self, tag: int, multiple: bool) -> set[int]:
        settled = {known for known in self._unconfirmed if known <= tag} if multiple else {tag}
        self._unconfirmed -= settled
        return settled

    def _on_return(self, _error: Exception, _exchange: str, _routing_key: str, message: amqp.Message) -> None:
        self._returned.add(message.properties["message_id"])

    def _drop(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            close_quietly(connection)

    def stop(self) -> None:
        """Close the connection, but not under a batch that still awaits its confirms."""
        is_idle = self._lock.acquire(timeout=CONFIRM_TIMEOUT_SECONDS)
        self._drop()
        if is_idle:
            self._lock.release()

    def kill(self) -> None:
        """Close the connection."""
        self._drop()


class Subscription(Protocol):
    """Something that consumes one queue on the service's listening connection."""

    prefetch: int
    queue: str
    no_ack: bool

    def on_connected(self, channel: amqp.Channel) -> None:
        """Declare what is needed; called on every (re)connection, before consuming begins."""

    def on_message(self, message: amqp.Message) -> None:
        """Take one message. Must not block: it runs in the greenlet that reads the connection."""

    def on_disconnected(self) -> None:
        """Forget what came over the lost connection; the broker will deliver it again."""


class Listener(SharedExtension):
    """The connection a service listens on: a single reader greenlet, a channel for each subscription."""

    def __init__(self) -> None:
        super().__init__()
        self._subscriptions: list[Subscription] = []
        self._consumers: dict[Subscription, tuple[amqp.Channel, str]] = {}
        self._connection: Any = None
        self._reader: Any = None
        self._first_connection = Signal()
        self._stopping = False

    @property
    def connected(self) -> bool:
        """True while the broker is there and everything is subscribed."""
        return self._connection is not None and len(self._consumers) == len(self._subscriptions)

    def subscribe(self, subscription: Subscription) -> None:
        """Consume `subscription.queue` from the start of the service on; call this in setup()."""
        if subscription not in self._subscriptions:
            self._subscriptions.append(subscription)

    def unsubscribe(self, subscription: Subscription) -> None:
        """Take no more messages for `subscription`; what has been taken can still be acked."""
        channel, tag = self._consumers.pop(subscription, (None, ""))
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
        if channel is not None:
            with suppress(*CONNECTION_ERRORS, AttributeError):
                channel.basic_cancel(tag, nowait=True)

    def start(self) -> None:
        """Connect, however long that takes: a service that cannot listen is not started."""
        if self._reader is None:
            self._reader = self.container.spawn_managed_thread(self._run, identifier="broker.listener")
        self._first_connection.wait()

    def stop(self) -> None:
        """Close the connection; what is unacked goes back to its queues."""
        self._stopping = True
        self._let_start_return()
        if self._reader is not None:
            self._reader.kill()
        self._disconnect()

    def kill(self) -> None:
        """End at once; the container kills the reader."""
        self._stopping = True
        self._let_start_return()
        if self._connection is not None:
            self._connection.collect()

    def _let_start_return(self) -> None:
        if not self._first_connection.ready():
            self._first_connection.send()

    def _run(self) -> None:
        backoff = Backoff()
        while not self._stopping:
            try:
                with eventlet.Timeout(SETUP_TIMEOUT_SECONDS, TimeoutError("the broker did not finish the set-up")):
                    self._connect()
                backoff.reset()
                self._read()
            except CONNECTION_ERRORS as error:
                self._disconnect()
                pause = backoff.next_pause()
                log.warning("RabbitMQ is unavailable (%s); next try in %.1f s", error or type(error).__name__, pause)
                eventlet.sleep(pause)

    def _connect(self) -> None:
        self._connection = connect(HEARTBEAT_SECONDS)
        topology.declare(self._connection.channel())
        for subscription in list(self._subscriptions):
            channel = self._connection.channel()
            subscription.on_connected(channel)
            channel.basic_qos(0, subscription.prefetch, False)
            tag = channel.basic_consume(
                subscription.queue, callback=subscription.on_message, no_ack=subscription.no_ack
            )
            self._consumers[subscription] = (channel, tag)
        log.info("listening on RabbitMQ, %d queues", len(self._consumers))
        self._let_start_return()

    def _read(self) -> None:
        connection = self._connection
        ticked = time.monotonic()
        while not self._stopping:
            with suppress(socket.timeout):
                connection.drain_events(timeout=1.0)
            if time.monotonic() - ticked >= 1.0:
                connection.heartbeat_tick()
                ticked = time.monotonic()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        self._consumers.clear()
        for subscription in self._subscriptions:
            subscription.on_disconnected()
        if connection is not None:
            close_quietly(connection)


def close_quietly(connection: amqp.Connection) -> None:
    """Close a connection that may be broken already, waiting two seconds at most."""
    with suppress(Exception), eventlet.Timeout(2, False):
        connection.close()
    with suppress(Exception):
        connection.collect()


def ack(channel: amqp.Channel, tag: int, *, multiple: bool = False) -> None:
    """Acknowledge; on a lost connection there is nothing to do, the message will come again."""
    with suppress(*CONNECTION_ERRORS, AttributeError):
        channel.basic_ack(tag, multiple=multiple)


@contextmanager
def broker_errors() -> Iterator[None]:
    """Turn a connection failure into BrokerUnavailable."""
    try:
        yield
    except (*CONNECTION_ERRORS, AttributeError) as error:
        raise BrokerUnavailable from error
