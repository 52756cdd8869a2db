"""Messages that cannot be handled: stored with the reason in the service's dead_letters table.

They come from event handlers and the RPC server, and from the broker, which dead-letters a message that was delivered
too often without an acknowledgement (the delivery limit of its queue).
"""

import logging
from collections.abc import Sequence
from typing import Any

import amqp
import eventlet
from nameko.extensions import SharedExtension
from sqlalchemy import insert
from sqlalchemy.exc import SQLAlchemyError

from contracts.ids import new_id
from extensions.messaging import topology
from extensions.messaging.connection import BrokerUnavailable, ack, has_own_user
from extensions.messaging.listener import Listener
from extensions.messaging.publisher import ConfirmedPublisher, copy_of
from extensions.messaging.storable import plain_count, plain_headers, plain_text
from extensions.observability.instruments import DeadLetterInstruments
from extensions.observability.metrics import Metrics
from extensions.runtime.backoff import Backoff
from extensions.storage.storage import Storage

log = logging.getLogger(__name__)

MAX_STORED_BODY = 1024 * 1024  # no event and no call is longer, so a longer body is never replayed
MAX_ATTEMPTS = 2**31 - 1  # the largest value of the column; the number can come from the sender
PREFETCH = 10
# The broker counts each delivery without an acknowledgement. After many crashes of a service, messages that caused none
# of them reach the delivery limit too. So a message is requeued a few times before it becomes a dead letter.
MAX_REQUEUES = 3
REQUEUES_HEADER = "x-lives"


class DeadLetters(SharedExtension):
    """Stores dead letters: those of this service's code, and those that the broker dead-letters."""

    listener = Listener()
    publisher = ConfirmedPublisher()
    storage = Storage()
    metrics = Metrics()
    no_ack = False
    prefetch = PREFETCH

    def __init__(self) -> None:
        super().__init__()
        self.queue = ""
        self._instruments: Any = None
        self._channel: Any = None

    def setup(self) -> None:
        """Create the instruments."""
        self._instruments = DeadLetterInstruments(self.metrics, self.container.service_name)

    def subscribe(self) -> None:
        """Consume what the broker dead-letters for this service. Called by every event handler's setup()."""
        self.queue = topology.dead_letter_queue(self.container.service_name)
        self.listener.subscribe(self)

    def on_connected(self, channel: amqp.Channel) -> None:
        """Declare the queue, if the service may."""
        if not has_own_user(self.container.service_name):
            topology.declare_dead_letter_queue(channel, self.container.service_name)
        self._channel = channel

    def on_disconnected(self) -> None:
        """Discard the channel; the broker will redeliver."""
        self._channel = None

    def on_message(self, message: amqp.Message) -> None:
        """Requeue or store one message in a greenlet, without blocking the reader."""
        self.container.spawn_managed_thread(lambda: self._collect(message, self._channel), "dead_letters.collect")

    def _collect(self, message: amqp.Message, channel: amqp.Channel | None) -> None:
        backoff = Backoff()
        while channel is self._channel and channel is not None:
            try:
                if not self._requeue(message):
                    self._store_dead_lettered(message)
            except (SQLAlchemyError, BrokerUnavailable) as error:
                log.warning("a message that the broker dead-lettered waits (%s)", type(error).__name__)
                eventlet.sleep(backoff.next_pause())
            else:
                ack(channel, message.delivery_tag)
                return

    def _requeue(self, message: amqp.Message) -> bool:
        """Publish a message that reached its delivery limit to its queue again.

        Returns False where that is not possible, or was done MAX_REQUEUES times.
        """
        death = _last_death(plain_headers(message.headers))
        queue, requeues = str(death.get("queue")), plain_count((message.headers or {}).get(REQUEUES_HEADER)) + 1
        is_ours = queue.startswith(f"{self.container.service_name}.on_")
        if death.get("reason") != "delivery_limit" or not is_ours or requeues > MAX_REQUEUES:
            return False
        try:
            outgoing = copy_of(message, topology.AGAIN, routing_key=queue)
        except (KeyError, UnicodeDecodeError):
            return False
        outgoing.headers[REQUEUES_HEADER] = requeues
        if self.publisher.publish([outgoing]):
            return False  # the queue no longer exists
        log.warning(
            "%s in %s reached its delivery limit; requeued (%d of %d)",
            outgoing.message_id,
            queue,
            requeues,
            MAX_REQUEUES,
        )
        return True

    def _store_dead_lettered(self, message: amqp.Message) -> None:
        death = _last_death(plain_headers(message.headers))
        reason = f"dead-lettered by the broker: {death.get('reason', 'unknown')}"
        self.store(str(death.get("queue", self.queue)), message, reason, plain_count(death.get("count")))

    def store(self, queue: str, message: amqp.Message, error: str, attempts: int, *, with_body: bool = True) -> None:
        """Store `message` with the reason, and commit. Store it without its body where that may hold secrets."""
        self._insert([self._row(queue, message, error, attempts, with_body=with_body)])

    def store_all(self, messages: Sequence[tuple[str, amqp.Message, str]]) -> None:
        """Store messages that were never handled in one transaction. Each is a (queue, message, reason)."""
        self._insert([self._row(queue, message, error, attempts=0) for queue, message, error in messages])

    def _insert(self, rows: Sequence[dict[str, Any]]) -> None:
        for row in rows:
            log.error("dead letter %s in %s: %s", row["id"], row["queue"], row["error"])
        with self.storage.sessions.begin() as session:
            session.execute(insert(self.storage.table("dead_letters")), rows)
        self._instruments.stored(row["queue"] for row in rows)

    @staticmethod
    def _row(queue: str, message: amqp.Message, error: str, attempts: int, *, with_body: bool = True) -> dict[str, Any]:
        properties = message.properties
        return {
            "id": new_id(),
            "queue": plain_text(queue),
            "event_type": plain_text(properties.get("type")),
            "message_id": plain_text(properties.get("message_id")),
            "correlation_id": plain_text(properties.get("correlation_id")),
            "body": plain_text(message.body[:MAX_STORED_BODY])[:MAX_STORED_BODY] if with_body else "",
            "headers": plain_headers(message.headers),
            "error": plain_text(error)[:4000],
            "attempts": max(0, min(attempts, MAX_ATTEMPTS)),
        }


def _last_death(headers: dict[str, Any] | None) -> dict[str, Any]:
    """Return the broker's latest x-death entry, or an empty dict where a sender wrote something else there."""
    deaths = (headers or {}).get("x-death")
    first = deaths[0] if isinstance(deaths, list) and deaths else None
    return first if isinstance(first, dict) else {}
