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
from extensions.messaging.inbound import Forged, Undecodable, require_genuine_death
from extensions.messaging.listener import Listener
from extensions.messaging.publisher import ConfirmedPublisher, copy_of
from extensions.messaging.storable import plain_count, plain_headers, plain_text
from extensions.observability.instruments import DeadLetterInstruments
from extensions.observability.metrics import Metrics
from extensions.runtime.backoff import Backoff
from extensions.runtime.progress import Loop, loops_of
from extensions.storage.database_access import DatabaseAccess
from extensions.storage.engine import is_outage

log = logging.getLogger(__name__)

MAX_STORED_BODY = 1024 * 1024  # no event and no call is longer, so a longer body is never replayed
MAX_ATTEMPTS = 2**31 - 1  # the largest value of the column; the number can come from the sender
PREFETCH = 10
# The broker counts each delivery without an acknowledgement. After many crashes of a service, messages that caused none
# of them reach the delivery limit too. So a message is requeued a few times before it becomes a dead letter.
MAX_REQUEUES = 3
# The name is part of the wire format: during an update, processes of two versions count in the same messages.
REQUEUES_HEADER = "x-lives"


class DeadLetters(SharedExtension):
    """Stores dead letters: those of this service's code, and those that the broker dead-letters."""

    listener = Listener()
    publisher = ConfirmedPublisher()
    storage = DatabaseAccess()
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
        with loops_of(self.container).running("dead_letters.collect") as loop:
            self._collect_through_outages(message, channel, loop)

    def _collect_through_outages(self, message: amqp.Message, channel: amqp.Channel | None, loop: Loop) -> None:
        backoff = Backoff()
        while channel is self._channel and channel is not None:
            loop.report_progress()
            try:
                self._requeue_or_store(message)
            except (SQLAlchemyError, BrokerUnavailable) as error:
                log.warning("a message that the broker dead-lettered waits (%s)", type(error).__name__)
                pause = backoff.next_pause()
                loop.report_idle(pause)
                eventlet.sleep(pause)
            else:
                ack(channel, message.delivery_tag)
                return

    def _requeue_or_store(self, message: amqp.Message) -> None:
        death = _last_death(plain_headers(message.headers))
        reason, is_forged = f"dead-lettered by the broker: {death.get('reason', 'unknown')}", False
        try:
            require_genuine_death(message, self.container.service_name)
            if self._requeue(message):
                return
        except Forged as error:
            reason, is_forged = f"{reason}; {error}", True
        queue, attempts = str(death.get("queue", self.queue)), plain_count(death.get("count"))
        self.store(queue, message, reason, attempts, is_forged=is_forged)

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
        if self.publisher.publish_one(outgoing):
            return False  # the queue no longer exists
        log.warning(
            "%s in %s reached its delivery limit; requeued (%d of %d)",
            outgoing.message_id,
            queue,
            requeues,
            MAX_REQUEUES,
        )
        return True

    def store(
        self,
        queue: str,
        message: amqp.Message,
        error: str,
        attempts: int,
        *,
        with_body: bool = True,
        is_forged: bool = False,
    ) -> None:
        """Store `message` with the reason, and commit. Store it without its body where that may hold secrets."""
        self._insert([self._row(queue, message, error, attempts, with_body=with_body, is_forged=is_forged)])

    def store_all(self, messages: Sequence[tuple[str, amqp.Message, Undecodable]]) -> None:
        """Store messages that were never handled in one transaction. Each is a (queue, message, reason)."""
        self._insert(
            [
                self._row(queue, message, str(error), attempts=0, is_forged=isinstance(error, Forged))
                for queue, message, error in messages
            ]
        )

    def _insert(self, rows: Sequence[dict[str, Any]]) -> None:
        for row in rows:
            log.error("dead letter %s in %s: %s", row["id"], row["queue"], row["error"])
        try:
            self._insert_together(rows)
        except Exception as error:
            if is_outage(error):
                raise
            # PostgreSQL cannot store one of them. Without a limit on its tries, it would stop the others for ever.
            log.exception("dead letters are stored one by one, without what cannot be stored")
            for row in rows:
                self._insert_reduced(row)

    def _insert_reduced(self, row: dict[str, Any]) -> None:
        """Insert one row; without the body and the headers of the message if it cannot be stored with them."""
        try:
            self._insert_together([row])
        except Exception as error:
            if is_outage(error):
                raise
            kept = {name: value for name, value in row.items() if name in {"id", "queue", "attempts", "is_forged"}}
            self._insert_together([kept | {"body": "", "headers": {}, "error": "this message cannot be stored"}])

    def _insert_together(self, rows: Sequence[dict[str, Any]]) -> None:
        with self.storage.sessions.begin() as session:
            session.execute(insert(self.storage.table("dead_letters")), rows)
        self._instruments.stored(row["queue"] for row in rows)

    @staticmethod
    def _row(
        queue: str,
        message: amqp.Message,
        error: str,
        attempts: int,
        *,
        with_body: bool = True,
        is_forged: bool = False,
    ) -> dict[str, Any]:
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
            "is_forged": is_forged,
        }


def _last_death(headers: dict[str, Any] | None) -> dict[str, Any]:
    """Return the broker's latest x-death entry, or an empty dict where a sender wrote something else there."""
    deaths = (headers or {}).get("x-death")
    first = deaths[0] if isinstance(deaths, list) and deaths else None
    return first if isinstance(first, dict) else {}
