"""The connection that a service listens on, and what can listen on it."""

import gc
import logging
import socket
from contextlib import suppress
from typing import Any, Protocol

import amqp
import eventlet
from eventlet.event import Event as Signal
from nameko import config
from nameko.extensions import SharedExtension

from extensions.messaging import topology
from extensions.messaging.connection import CONNECTION_ERRORS, close_quietly, connect
from extensions.messaging.wire.connection import connection_class
from extensions.runtime.backoff import Backoff
from extensions.security.production import require_own_secrets

log = logging.getLogger(__name__)

# The broker gives a silent peer up after two of them, and so do we.
HEARTBEAT_SECONDS = 10
CANCEL_TIMEOUT_SECONDS = 3
SETUP_TIMEOUT_SECONDS = 15


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

    def is_consuming(self, subscription: Subscription) -> bool:
        """Tell whether messages for `subscription` would arrive now."""
        return subscription in self._consumers

    def subscribe(self, subscription: Subscription, *, last: bool = False) -> None:
        """Consume `subscription.queue` from the start of the service on; call this in setup().

        The `last` one begins when all others are there: whoever gets an answer from it finds the service complete.
        """
        if subscription not in self._subscriptions:
            self._subscriptions.insert(len(self._subscriptions) if last else 0, subscription)

    def unsubscribe(self, subscription: Subscription) -> None:
        """Take no more messages for `subscription`; returns when none can come any more. All can still be acked.

        The broker confirms the end of a consumer after its last delivery; what arrives until then is served as ever,
        because what we let go back would count as delivered twice.
        """
        channel, tag = self._consumers.pop(subscription, (None, ""))
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
        if channel is None:
            return
        with suppress(*CONNECTION_ERRORS, AttributeError), eventlet.Timeout(CANCEL_TIMEOUT_SECONDS, False):
            # Not basic_cancel(), which would read the answer itself and steal frames from the reader.
            channel.send_method(amqp.spec.Basic.Cancel, "sb", (tag, False))
            while tag in channel.callbacks:
                eventlet.sleep(0.01)

    def setup(self) -> None:
        """Refuse to start in production with what is for development; every service listens, so it is done here."""
        require_own_secrets(config, self.container.service_name)
        connection_class(config)  # raises where AMQP_WIRE names no implementation

    def start(self) -> None:
        """Connect, however long that takes: a service that cannot listen is not started."""
        if self._reader is None:
            self._reader = self.container.spawn_managed_thread(self._run, identifier="broker.listener")
        self._first_connection.wait()
        # What was imported lives as long as the process. Looking at all of it again and again, in search of garbage,
        # took a tenth of a second each time, in which nobody was answered.
        if not gc.get_freeze_count():  # once: what several services of one process drop should still be found
            gc.freeze()

    def await_connection(self, seconds: float) -> None:
        """Return when the service listens for the first time, or after `seconds`."""
        if not self._first_connection.ready():
            self._first_connection.wait(timeout=seconds)

    def stop(self) -> None:
        """Close the connection; what is unacked goes back to its queues."""
        self._stopping = True
        self._let_start_return()
        if self._reader is not None:
            self._reader.kill()
        self._disconnect()

    def kill(self) -> None:
        """End at once."""
        self._stopping = True
        self._let_start_return()
        # First: a reader that waited for a closed socket would meet whatever gets its number next.
        if self._reader is not None and self._reader is not eventlet.getcurrent():
            self._reader.kill()
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
            except (*CONNECTION_ERRORS, topology.TopologyMissing) as error:
                self._disconnect()
                pause = backoff.next_pause()
                log.warning("RabbitMQ is unavailable (%s); next try in %.1f s", error or type(error).__name__, pause)
                eventlet.sleep(pause)

    def _connect(self) -> None:
        self._connection = connect(HEARTBEAT_SECONDS, self.container.service_name)
        topology.ensure(self._connection, self.container.service_name)
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
        ticking = eventlet.spawn(self._tick, connection)
        try:
            while not self._stopping:
                connection.drain_events()
        finally:
            ticking.kill()

    def _tick(self, connection: amqp.Connection) -> None:
        """Send heartbeats. Where none came back, the reader, which waits without a deadline, is to see the end."""
        try:
            while True:
                eventlet.sleep(1.0)
                # It waits for those who write, and they for a peer that may never read again.
                with eventlet.Timeout(HEARTBEAT_SECONDS, TimeoutError("it takes nothing any more")):
                    connection.heartbeat_tick()
        except (*CONNECTION_ERRORS, AttributeError) as error:
            log.warning("the connection to RabbitMQ is given up: %s", error or type(error).__name__)
            with suppress(OSError, AttributeError):
                connection.transport.sock.shutdown(socket.SHUT_RDWR)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        self._consumers.clear()
        for subscription in self._subscriptions:
            subscription.on_disconnected()
        if connection is not None:
            close_quietly(connection)
