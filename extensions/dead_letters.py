"""What could not be handled: kept with its reason in the service's dead_letters table, visible and replayable."""

import json
import logging
from typing import Any
from uuid import UUID

import amqp
import eventlet
from nameko.extensions import SharedExtension
from sqlalchemy import Row, Table, delete, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from contracts.errors import DeadLetterNotFound
from extensions import topology
from extensions.broker import Backoff, BrokerUnavailable, ack
from extensions.ids import new_id
from extensions.listener import Listener
from extensions.publisher import ConfirmedPublisher, Outgoing

log = logging.getLogger(__name__)

MAX_STORED_BODY = 16 * 1024 * 1024
PREFETCH = 10


class DeadLetters(SharedExtension):
    """Fills the table: from handlers that give up, and from what the broker itself dead-letters.

    The broker does so with a message whose delivery killed its consumer too often (the queue's delivery limit).
    """

    listener = Listener()
    publisher = ConfirmedPublisher()
    no_ack = False
    prefetch = PREFETCH

    def __init__(self) -> None:
        super().__init__()
        self.queue = ""
        self._sessions: Any = None
        self._table: Any = None
        self._channel: Any = None

    def use(self, sessions: "sessionmaker[Session]", table: Table) -> None:
        """Say where the table is; called by Work.setup()."""
        self._sessions, self._table = sessions, table

    def collect(self) -> None:
        """Take what the broker dead-letters for this service; called by every handler's setup()."""
        self.queue = topology.dead_letter_queue(self.container.service_name)
        self.listener.subscribe(self)

    def on_connected(self, channel: amqp.Channel) -> None:
        """Declare the queue."""
        topology.declare_dead_letter_queue(channel, self.container.service_name)
        self._channel = channel

    def on_disconnected(self) -> None:
        """Forget the channel; the deliveries will come again."""
        self._channel = None

    def on_message(self, message: amqp.Message) -> None:
        """Store one message that the broker gave up on, without blocking the reader."""
        self.container.spawn_managed_thread(lambda: self._collect(message, self._channel), "dead_letters.collect")

    def _collect(self, message: amqp.Message, channel: amqp.Channel | None) -> None:
        death = ((message.headers or {}).get("x-death") or [{}])[0]
        reason = f"the broker gave up: {death.get('reason', 'unknown')}"
        backoff = Backoff()
        while channel is self._channel and channel is not None:
            try:
                self.bury(str(death.get("queue", self.queue)), message, reason, int(death.get("count", 0)))
            except SQLAlchemyError as error:
                log.warning("a dead letter waits for the database (%s)", type(error).__name__)
                eventlet.sleep(backoff.next_pause())
            else:
                ack(channel, message.delivery_tag)
                return

    def bury(self, queue: str, message: amqp.Message, error: str, attempts: int, *, with_body: bool = True) -> None:
        """Store `message` with its reason, committed when this returns. A body may hold what nobody should keep."""
        properties = message.properties
        row = {
            "id": new_id(),
            "queue": queue,
            "event_type": _text(properties.get("type")),
            "message_id": _text(properties.get("message_id")),
            "correlation_id": _text(properties.get("correlation_id")),
            "body": _text(message.body)[:MAX_STORED_BODY] if with_body else "",
            "headers": _storable_headers(message.headers or {}),
            "error": _text(error)[:4000],
            "attempts": attempts,
        }
        log.error("dead letter %s in %s: %s", row["id"], queue, row["error"])
        with self._sessions.begin() as session:
            session.execute(insert(self._table).values(row))

    def list(self, session: Session, limit: int, before: UUID | None) -> list[Row[Any]]:
        """Return the newest dead letters that were not replayed, older than `before`."""
        letters = self._table
        statement = select(letters).where(letters.c.replayed_at.is_(None)).order_by(letters.c.id.desc()).limit(limit)
        if before is not None:
            statement = statement.where(letters.c.id < before)
        return list(session.execute(statement))

    def discard(self, session: Session, dead_letter_id: UUID) -> None:
        """Give a dead letter up for good; the log keeps that it was."""
        letters = self._table
        found = session.execute(
            delete(letters)
            .where(letters.c.id == dead_letter_id, letters.c.replayed_at.is_(None))
            .returning(letters.c.queue, letters.c.message_id, letters.c.error)
        ).one_or_none()
        if found is None:
            raise DeadLetterNotFound
        log.warning("dead letter %s discarded: %s %s: %s", dead_letter_id, *found)

    def replay(self, session: Session, dead_letter_id: UUID) -> None:
        """Put a dead letter back into its queue, once, with all its tries before it; record when.

        The row is locked until the broker has confirmed, so that two operators cannot replay it twice.
        """
        letters = self._table
        row = session.execute(
            select(letters).where(letters.c.id == dead_letter_id, letters.c.replayed_at.is_(None)).with_for_update()
        ).one_or_none()
        if row is None:
            raise DeadLetterNotFound
        headers = {
            name: row.headers[name] for name in ("x-request-id", "traceparent", "causation-id") if name in row.headers
        }
        message = Outgoing(
            exchange="",
            routing_key=row.queue,
            body=row.body,
            message_id=row.message_id or str(new_id()),
            event_type=row.event_type,
            correlation_id=row.correlation_id,
            headers=headers,
        )
        if self.publisher.publish([message]):
            raise BrokerUnavailable
        session.execute(
            update(letters).where(letters.c.id == dead_letter_id).values(replayed_at=func.clock_timestamp())
        )


def _storable_headers(headers: dict[str, Any]) -> Any:
    return json.loads(json.dumps(headers, default=str).replace("\\u0000", "\\\\x00"))


def _text(value: Any) -> Any:
    """Return `value` as text that PostgreSQL can store; None stays None."""
    if value is None:
        return None
    text = bytes(value).decode("utf-8", "backslashreplace") if isinstance(value, bytes | memoryview) else str(value)
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
