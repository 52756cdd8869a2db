"""Publishing with publisher confirms, for messages that must not be lost."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import amqp
from amqp.exceptions import AccessRefused
from eventlet.semaphore import Semaphore
from nameko.extensions import SharedExtension

from extensions.messaging import topology
from extensions.messaging.connection import CONNECTION_ERRORS, BrokerUnavailable, close_quietly, connect
from extensions.observability.traces import propagated_headers

log = logging.getLogger(__name__)

CONFIRM_TIMEOUT_SECONDS = 10


@dataclass(slots=True)
class OutgoingMessage:
    """A message to publish. A message that the broker returns is identified by its `message_id`."""

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


def copy_of(message: amqp.Message, exchange: str, routing_key: str) -> OutgoingMessage:
    """Return a copy of `message` with another address. It keeps the identity and the trace, and no other headers."""
    properties = message.properties
    return OutgoingMessage(
        exchange=exchange,
        routing_key=routing_key,
        body=message.body if isinstance(message.body, str) else message.body.decode(),
        message_id=str(properties["message_id"]),
        event_type=properties.get("type"),
        app_id=properties.get("app_id"),
        correlation_id=properties.get("correlation_id"),
        # Without x-death: it would make the broker drop the copy as a dead-letter cycle.
        headers=propagated_headers(message.headers),
    )


class ConfirmedPublisher(SharedExtension):
    """Publishes persistent messages, and returns after the broker has confirmed them.

    It has its own connection, which the first publish opens. It publishes one batch at a time.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = Semaphore(1)
        self._connection: Any = None
        self._channel: Any = None
        self._unconfirmed: set[int] = set()
        self._refused: set[int] = set()
        self._returned: set[str] = set()

    def publish(self, messages: Sequence[OutgoingMessage]) -> set[str]:
        """Publish all of `messages` and wait for their confirms.

        Returns the ids of the messages that the broker returned as unroutable or refused. Raises BrokerUnavailable
        when the connection failed: each message may or may not have arrived, so publish all of them again.
        """
        with self._lock:
            try:
                return self._publish(messages)
            except CONNECTION_ERRORS as error:
                self._drop()
                if isinstance(error, AccessRefused):
                    log.error("the broker refuses this service permission to publish: %s", error.reply_text)  # noqa: TRY400
                raise BrokerUnavailable from error
            except BaseException:
                # Interrupted by a timeout or a kill: late confirms of this batch must not count for the next batch.
                self._drop()
                raise

    def _publish(self, messages: Sequence[OutgoingMessage]) -> set[str]:
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
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                message = "the broker did not confirm in time"
                raise TimeoutError(message)
            self._connection.drain_events(timeout=remaining)

    def _open_channel(self) -> amqp.Channel:
        if self._channel is None or not self._connection.connected:
            self._drop()
            # No heartbeats: the connection may be idle for long, and the next publish finds out that it is lost.
            self._connection = connect(heartbeat=0, service=self.container.service_name)
            topology.ensure(self._connection, self.container.service_name)
            channel = self._connection.channel()
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
        """Close the connection, after a batch that still awaits its confirms."""
        is_idle = self._lock.acquire(timeout=CONFIRM_TIMEOUT_SECONDS)
        self._drop()
        if is_idle:
            self._lock.release()

    def kill(self) -> None:
        """Close the connection."""
        self._drop()
