"""Publishing with publisher confirms, for messages that must not be lost."""

import logging
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import amqp
import eventlet
from amqp.exceptions import (
    AccessRefused,
    ChannelError,
    InternalError,
    IrrecoverableConnectionError,
    NotFound,
    RecoverableConnectionError,
)
from eventlet.event import Event as Signal
from eventlet.semaphore import Semaphore
from nameko.extensions import SharedExtension

from extensions.messaging import topology
from extensions.messaging.connection import BrokerBlocked, BrokerUnavailable
from extensions.messaging.reconnecting_connection import ReconnectingConnection, peers_of
from extensions.messaging.refusals import Address, Refusals
from extensions.observability.traces import propagated_headers
from extensions.runtime.progress import loops_of

log = logging.getLogger(__name__)

# Deadlines: of the wait for other callers' batches, of the wait for a connection, and of publishing a part of a batch
# with its confirms. Their sum is less than idle_in_transaction_session_timeout: the relay publishes in a transaction.
LOCK_SECONDS = 10.0
OPEN_SECONDS = 5.0
PUBLISH_SECONDS = 10.0
# The confirm of an optional message is awaited for this long after those of the others.
OPTIONAL_SECONDS = 1.0
# After this time a batch begins no further part: the rest is left to the next call. With the waits for others, for a
# connection and for the last part, a call takes at most LOCK_SECONDS + START_SECONDS + OPEN_SECONDS + PUBLISH_SECONDS.
START_SECONDS = 2.0
# A refusal ends the channel. After this many refusals, the rest of a batch is left to the next call.
MAX_REFUSALS = 5
# A failure is reported until the next success, but not longer than this: there may be nothing else to publish.
PROBLEM_SECONDS = 60.0
NO_QUEUE = "no queue took it"
NACKED = "the broker could not store it"

REFUSALS = (ChannelError, IrrecoverableConnectionError)
"""Errors that a message can cause. The broker closes the channel, or even the connection."""
# Errors of a lost connection. Any other error while a message is written is caused by this message.
LOST = (OSError, EOFError, RecoverableConnectionError, AttributeError)


@dataclass(slots=True)
class OutgoingMessage:
    """A message to publish. `message_id` identifies it if the broker returns it."""

    exchange: str
    routing_key: str
    body: str
    message_id: str
    mandatory: bool = True
    event_type: str | None = None
    app_id: str | None = None
    correlation_id: str | None = None
    headers: dict[str, Any] = field(default_factory=dict)
    is_optional: bool = False
    """The other messages of its batch do not wait for its confirm, except for OPTIONAL_SECONDS."""

    @property
    def address(self) -> Address:
        """The exchange and the routing key, for which the broker checks permission."""
        return self.exchange, self.routing_key

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
    """Return a copy of `message` with another address. It keeps the ids and the trace, and no other headers."""
    properties = message.properties
    return OutgoingMessage(
        exchange=exchange,
        routing_key=routing_key,
        body=message.body if isinstance(message.body, str) else message.body.decode(),
        message_id=str(properties["message_id"]),
        event_type=properties.get("type"),
        app_id=properties.get("app_id"),
        correlation_id=properties.get("correlation_id"),
        # x-death is left out: because of it the broker would drop the copy as a dead-letter cycle.
        headers=propagated_headers(message.headers),
    )


@dataclass(slots=True)
class Outcome:
    """The outcome of each message of one call. A message that is in no field was not sent."""

    confirmed: set[str] = field(default_factory=set)
    """The ids of the messages that the broker has stored."""
    refused: dict[str, str] = field(default_factory=dict)
    """The ids of the messages that the broker refused, with the reasons."""
    unknown: set[str] = field(default_factory=set)
    """The ids of the messages that were sent, but for which no confirm arrived: the broker may have stored them."""
    accepted_again: set[Address] = field(default_factory=set)
    """Addresses that were refused before, and are accepted now."""
    failure: BrokerUnavailable | None = None
    """The error of the connection, if it failed. Publish the messages that are neither confirmed nor refused again."""

    def is_open(self, message: OutgoingMessage) -> bool:
        """Tell whether nothing is known about `message` yet."""
        return message.message_id not in self.confirmed and message.message_id not in self.refused

    def refuse(self, messages: Iterable[OutgoingMessage], reason: str) -> None:
        """Record why these messages were refused."""
        self.refused.update({message.message_id: reason for message in messages if self.is_open(message)})


class Part:
    """Messages that were published together: the delivery tags without a confirm, and the outcome of the others."""

    def __init__(self, optional: Collection[str] = ()) -> None:
        """`optional` are the ids of the messages that may stay without a confirm."""
        self.unconfirmed: dict[int, str] = {}
        self.confirmed: set[str] = set()
        self.refused: dict[str, str] = {}
        self.error: Exception | None = None
        self.is_written = False
        self._optional = frozenset(optional)
        self._required_ended, self._ended = Signal(), Signal()

    def settle(self, tag: int, multiple: bool, refusal: str = "") -> None:
        """Record a confirm of one message, or of all up to `tag`. A tag of an earlier part changes nothing."""
        for settled in [known for known in self.unconfirmed if known <= tag] if multiple else [tag]:
            message_id = self.unconfirmed.pop(settled, "")
            if not message_id:
                continue
            if refusal:
                self.refused.setdefault(message_id, refusal)
            elif message_id not in self.refused:
                self.confirmed.add(message_id)
        self.end_if_complete()

    def end_if_complete(self) -> None:
        """End the wait for confirms if none is missing, or none but those of optional messages."""
        if self.is_written and not self.unconfirmed:
            self._end()
        elif self.is_written and self._optional.issuperset(self.unconfirmed.values()):
            _send_once(self._required_ended)

    def fail(self, error: Exception) -> None:
        """End the wait for confirms: none will come."""
        self.error = self.error or error
        self._end()

    def wait(self) -> None:
        """Wait for the end; where only optional messages are left, for OPTIONAL_SECONDS more."""
        self._required_ended.wait()
        if not self._ended.ready():
            with eventlet.Timeout(OPTIONAL_SECONDS, False):
                self._ended.wait()

    def _end(self) -> None:
        _send_once(self._required_ended)
        _send_once(self._ended)


def _send_once(signal: Signal) -> None:
    if not signal.ready():
        signal.send()


class ConfirmedPublisher(SharedExtension):
    """Publishes persistent messages, and returns after the broker has confirmed or refused them.

    It has its own connection, which the first publish opens. It publishes one batch at a time. When the broker refuses
    a message, it closes the channel, and does not say which message it refused. So the first message to each address
    (exchange and routing key) is published alone, and later ones are published together. After a refusal, the address
    is not tried again before a pause has passed. The pause grows with each refusal.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = Semaphore(1)
        self._connection: ReconnectingConnection | None = None
        self._reader: Any = None
        self._channel: Any = None
        self._published = 0
        self._part = Part()
        self._accepted: set[Address] = set()
        self._failure, self._failed_at = "", 0.0
        self.refusals = Refusals()

    @property
    def problem(self) -> str:
        """Why publishing does not work, in words: the problem of the connection, or a failure of the last minute."""
        if self._connection is not None and self._connection.problem:
            return self._connection.problem
        return self._failure if time.monotonic() - self._failed_at < PROBLEM_SECONDS else ""

    def publish(self, messages: Sequence[OutgoingMessage]) -> Outcome:
        """Publish all of `messages` and wait for their confirms. Raises nothing; see Outcome."""
        if not self._lock.acquire(timeout=LOCK_SECONDS):
            return Outcome(failure=BrokerUnavailable("Other messages wait for the message broker."))
        try:
            return self._publish(messages)
        finally:
            self._lock.release()

    def publish_one(self, message: OutgoingMessage) -> str:
        """Publish a message. Returns the reason if the broker refused it, else "". Raises BrokerUnavailable."""
        outcome = self.publish([message])
        if outcome.failure is not None:
            raise outcome.failure
        return outcome.refused.get(message.message_id, "")

    def _publish(self, messages: Sequence[OutgoingMessage]) -> Outcome:
        outcome = Outcome()
        for message in messages:
            if reason := self.refusals.reason(message.address):
                outcome.refuse([message], reason)
        one_by_one, refusals, start_by = False, 0, time.monotonic() + START_SECONDS
        while (waiting := [message for message in messages if outcome.is_open(message)]) and refusals < MAX_REFUSALS:
            if time.monotonic() >= start_by:
                break
            part = waiting[:1] if one_by_one else self._next_part(waiting)
            try:
                refusal = self._publish_part(part, outcome)
            except BrokerUnavailable as error:
                outcome.failure = error
                self._failure, self._failed_at = str(error.__cause__ or error), time.monotonic()
                break
            self._failure = ""
            if refusal is not None:
                refusals += 1
                one_by_one = one_by_one or not self._isolate(part, waiting, refusal, outcome)
        return outcome

    def _next_part(self, waiting: list[OutgoingMessage]) -> list[OutgoingMessage]:
        """Return the next messages to addresses that are known to be accepted, or else the next message alone."""
        return list(takewhile(lambda message: message.address in self._accepted, waiting)) or waiting[:1]

    def _isolate(
        self, part: list[OutgoingMessage], waiting: list[OutgoingMessage], refusal: Exception, outcome: Outcome
    ) -> bool:
        """Record a refusal if it is known which message caused it. Returns whether the whole address is refused."""
        is_of_address = isinstance(refusal, AccessRefused | NotFound)
        left = [message for message in part if outcome.is_open(message)]
        if len(left) == 1:
            reason = f"refused by the broker: {getattr(refusal, 'reply_text', '') or refusal}"
            log.error("RabbitMQ refuses a message to %s: %s", "/".join(left[0].address), reason)
            if is_of_address:
                self.refusals.add(left[0].address, reason)
                left = [message for message in waiting if message.address == left[0].address]
            outcome.refuse(left, reason)
        return is_of_address

    def _publish_part(self, messages: Sequence[OutgoingMessage], outcome: Outcome) -> Exception | None:
        """Publish these messages together. Returns the error of the broker that one of them caused, if there is one."""
        channel = self._open_channel()
        part = self._part = Part({message.message_id for message in messages if message.is_optional})
        try:
            with eventlet.Timeout(PUBLISH_SECONDS, TimeoutError("the broker did not confirm in time")):
                self._write(channel, messages, part)
                self._await_confirms(part)
        except LOST as error:
            self._drop(str(error))
            part.fail(error)
        except BaseException:
            self._drop("publishing was interrupted")  # perhaps in the middle of a frame
            raise
        finally:
            outcome.confirmed |= part.confirmed
            outcome.refused |= part.refused
            outcome.unknown |= set(part.unconfirmed.values())
        failure = part.error
        if isinstance(failure, REFUSALS) and not isinstance(failure, InternalError):
            return failure
        if isinstance(failure, BrokerBlocked):
            raise failure
        if failure is not None:
            raise BrokerUnavailable from failure
        self._remember_accepted(messages, outcome)
        return None

    def _write(self, channel: amqp.Channel, messages: Sequence[OutgoingMessage], part: Part) -> None:
        for message in messages:
            tag = self._published + 1
            part.unconfirmed[tag] = message.message_id
            try:
                channel.basic_publish(
                    message.to_amqp(), message.exchange, message.routing_key, mandatory=message.mandatory
                )
            except LOST:
                raise
            except Exception as error:  # noqa: BLE001  (py-amqp documents no exceptions for what it cannot encode)
                del part.unconfirmed[tag]
                part.refused[message.message_id] = f"it cannot be encoded: {type(error).__name__}: {error}"
            else:
                self._published = tag
        part.is_written = True
        part.end_if_complete()

    def _await_confirms(self, part: Part) -> None:
        part.wait()

    def _remember_accepted(self, messages: Sequence[OutgoingMessage], outcome: Outcome) -> None:
        for address in {message.address for message in messages}:
            self._accepted.add(address)
            if self.refusals.remove(address):
                outcome.accepted_again.add(address)

    def _open_channel(self) -> amqp.Channel:
        if self._connection is None:
            service = self.container.service_name
            self._connection = ReconnectingConnection(
                "publishing",
                service,
                self._set_up,
                self._handle_loss,
                self._handle_block,
                self._handle_channel_error,
                loops_of(self.container),
                peers_of(self.container),
            )
            self._reader = self.container.spawn_managed_thread(self._connection.run, identifier="broker.publishing")
        self._connection.require(OPEN_SECONDS)
        return self._channel

    def _set_up(self, connection: amqp.Connection) -> None:
        topology.ensure(connection, self.container.service_name)
        channel = connection.channel()
        self._begin(channel)
        channel.events["basic_ack"].add(self._on_ack)
        channel.events["basic_nack"].add(self._on_nack)
        channel.events["basic_return"].add(self._on_return)
        self._channel = channel

    def _begin(self, channel: amqp.Channel) -> None:
        """Prepare a channel that was just opened."""
        channel.confirm_select()
        self._published = 0
        self._accepted.clear()

    def _handle_channel_error(self, error: ChannelError) -> None:
        """Go on with the channel, which was opened again: a new connection would delay the messages of all others."""
        self._begin(self._channel)
        self._part.fail(error)

    def _handle_loss(self, error: Exception) -> None:
        self._channel = None
        self._part.fail(error)

    def _handle_block(self) -> None:
        self._part.fail(BrokerBlocked())

    def _on_ack(self, tag: int, multiple: bool) -> None:
        self._part.settle(tag, multiple)

    def _on_nack(self, tag: int, multiple: bool) -> None:
        self._part.settle(tag, multiple, NACKED)

    def _on_return(self, _error: Exception, _exchange: str, _routing_key: str, message: amqp.Message) -> None:
        message_id = message.properties["message_id"]
        if message_id in self._part.unconfirmed.values():
            self._part.refused[message_id] = NO_QUEUE

    def _drop(self, reason: str) -> None:
        if self._connection is not None:
            self._connection.drop(reason)

    def stop(self) -> None:
        """Close the connection after the confirms of a batch that is being published. The relay may open a new one."""
        is_idle = self._lock.acquire(timeout=PUBLISH_SECONDS)
        if self._connection is not None:
            self._reader.kill()
            self._connection.close()
            self._connection = None
        if is_idle:
            self._lock.release()

    def kill(self) -> None:
        """Drop the connection without closing it."""
        if self._connection is not None:
            if self._reader is not eventlet.getcurrent():
                self._reader.kill()
            self._connection.abandon()
