"""The connection on which a service consumes its queues and acknowledges messages.

Nothing is published on it: while the broker is short of memory or disk, it reads nothing from a connection on which
something was published, acknowledgements neither.
"""

import logging
from contextlib import suppress
from typing import Any, Protocol

import amqp
import eventlet
from amqp.exceptions import AccessRefused
from nameko import config
from nameko.extensions import SharedExtension

from extensions.messaging import topology
from extensions.messaging.connection import CONNECTION_ERRORS
from extensions.messaging.reconnecting_connection import ReconnectingConnection, peers_of
from extensions.messaging.wire.connection import connection_class
from extensions.runtime import garbage
from extensions.runtime.progress import loops_of
from extensions.security.production import require_own_secrets

log = logging.getLogger(__name__)

CANCEL_TIMEOUT_SECONDS = 3


class Subscription(Protocol):
    """What the listener calls for one queue that the service consumes."""

    prefetch: int
    queue: str
    no_ack: bool

    def on_connected(self, channel: amqp.Channel) -> None:
        """Declare what is needed. Called after each connection is opened, before consuming begins."""

    def on_message(self, message: amqp.Message) -> None:
        """Receive one message. Must not block: it runs in the greenlet that reads the connection."""

    def on_disconnected(self) -> None:
        """Discard what was received over the lost connection. The broker will deliver it again."""


class Listener(SharedExtension):
    """One connection per service: a single greenlet reads it, and each subscription has its own channel."""

    def __init__(self) -> None:
        super().__init__()
        self._subscriptions: list[Subscription] = []
        self._consumers: dict[Subscription, tuple[amqp.Channel, str]] = {}
        self._connection: Any = None
        self._reader: Any = None

    @property
    def problem(self) -> str:
        """Why the service does not consume its queues, in words; "" if it does."""
        return str(self._connection.problem)

    def is_consuming(self, subscription: Subscription) -> bool:
        """Tell whether the broker delivers messages for `subscription` at present."""
        return subscription in self._consumers

    def subscribe(self, subscription: Subscription, *, last: bool = False) -> None:
        """Consume `subscription.queue` once the service has started. Call this in setup().

        The `last` subscription begins after all others, so that a service accepts calls only when it is ready.
        """
        if subscription not in self._subscriptions:
            self._subscriptions.insert(len(self._subscriptions) if last else 0, subscription)

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop consuming for `subscription`. Returns after its last message; all messages can still be acknowledged.

        The broker confirms the end of a consumer after its last delivery. Messages that arrive until then are still
        handled: a message that returned to its queue would count as delivered twice.
        """
        channel, tag = self._consumers.pop(subscription, (None, ""))
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)
        if channel is None:
            return
        with suppress(*CONNECTION_ERRORS, AttributeError), eventlet.Timeout(CANCEL_TIMEOUT_SECONDS, False):
            # Not basic_cancel(): it would read the confirmation itself, and take frames from the reader.
            channel.send_method(amqp.spec.Basic.Cancel, "sb", (tag, False))
            while tag in channel.callbacks:
                eventlet.sleep(0.01)

    def setup(self) -> None:
        """Check the settings: no development secrets in production, and a known AMQP_WIRE. Every service listens."""
        require_own_secrets(config, self.container.service_name)
        connection_class(config)
        self._connection = ReconnectingConnection(
            "consuming",
            self.container.service_name,
            self._set_up,
            lambda _error: self._disconnect(),
            loops=loops_of(self.container),
            peers=peers_of(self.container),
        )

    def start(self) -> None:
        """Connect, however long it takes: a service without its queues has not started."""
        if self._reader is None:
            self._reader = self.container.spawn_managed_thread(self._connection.run, identifier="broker.consuming")
        self._connection.await_first()
        loops_of(self.container).has_started = True
        garbage.end_start()

    def await_connection(self, seconds: float) -> None:
        """Wait until the service is connected for the first time, `seconds` at most."""
        self._connection.await_first(seconds)

    def stop(self) -> None:
        """Close the connection. The broker requeues unacknowledged messages."""
        if self._reader is not None:
            self._reader.kill()
            self._connection.close()

    def kill(self) -> None:
        """End the reader and drop the connection without closing it."""
        if self._reader is None:
            return
        # First: a reader that waits on a closed socket would read from the next socket with the same number.
        if self._reader is not eventlet.getcurrent():
            self._reader.kill()
        self._connection.abandon()

    def _set_up(self, connection: amqp.Connection) -> None:
        topology.ensure(connection, self.container.service_name)
        for subscription in list(self._subscriptions):
            channel = connection.channel()
            try:
                subscription.on_connected(channel)
            except AccessRefused as error:
                if not getattr(subscription, "is_optional", False):
                    raise
                log.warning("the broker's definitions are old: %s", error.reply_text)
                continue
            channel.basic_qos(0, subscription.prefetch, False)
            tag = channel.basic_consume(
                subscription.queue, callback=subscription.on_message, no_ack=subscription.no_ack
            )
            self._consumers[subscription] = (channel, tag)
        log.info("listening on RabbitMQ, %d queues", len(self._consumers))

    def _disconnect(self) -> None:
        self._consumers.clear()
        for subscription in self._subscriptions:
            subscription.on_disconnected()
