"""What could not be handled: kept with its reason in the service's dead_letters table, visible and replayable."""

import logging
import math
from collections.abc import Sequence
from datetime import UTC
from typing import Any
from uuid import UUID

import amqp
import eventlet
from nameko.extensions import DependencyProvider, SharedExtension
from sqlalchemy import Row, Select, delete, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from contracts.errors import DeadLetterNotFound, InvalidState
from contracts.events import EVENTS, queue_name
from contracts.ids import new_id
from contracts.operations import DeadLetterView, Summary
from extensions.messaging import topology
from extensions.messaging.connection import BrokerUnavailable, ack, has_own_user
from extensions.messaging.listener import Listener
from extensions.messaging.publisher import ConfirmedPublisher, OutgoingMessage
from extensions.observability.instruments import DeadLetterInstruments
from extensions.observability.metrics import Metrics
from extensions.observability.traces import propagated_headers
from extensions.runtime.backoff import Backoff
from extensions.storage.storage import Storage

log = logging.getLogger(__name__)

MAX_STORED_BODY = 1024 * 1024  # longer ones are no event and no call: nobody would take them at a replay
MAX_ATTEMPTS = 2**31 - 1  # what the column holds; a sender can claim any number
MAX_HEADER_DEPTH = 8
PREFETCH = 10
SHOWN_BODY = 2000
# A delivery counts, though it was not the message's fault that nobody acked it: after a storm of crashes, the broker
# gives up on innocent messages too. So each begins anew, a few times; what still kills its consumers stays dead.
MORE_LIVES = 3
LIVES_HEADER = "x-lives"


class DeadLetters(SharedExtension):
    """Fills the table: from handlers that give up, and from what the broker itself dead-letters.

    The broker does so with a message whose delivery killed its consumer too often (the queue's delivery limit).
    """

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
        """Get ready to be measured."""
        self._instruments = DeadLetterInstruments(self.metrics, self.container.service_name)

    def collect(self) -> None:
        """Take what the broker dead-letters for this service; called by every handler's setup()."""
        self.queue = topology.dead_letter_queue(self.container.service_name)
        self.listener.subscribe(self)

    def on_connected(self, channel: amqp.Channel) -> None:
        """Declare the queue."""
        if not has_own_user(self.container.service_name):
            topology.declare_dead_letter_queue(channel, self.container.service_name)
        self._channel = channel

    def on_disconnected(self) -> None:
        """Forget the channel; the deliveries will come again."""
        self._channel = None

    def on_message(self, message: amqp.Message) -> None:
        """Store one message that the broker gave up on, without blocking the reader."""
        self.container.spawn_managed_thread(lambda: self._collect(message, self._channel), "dead_letters.collect")

    def _collect(self, message: amqp.Message, channel: amqp.Channel | None) -> None:
        backoff = Backoff()
        while channel is self._channel and channel is not None:
            try:
                if not self._revive(message):
                    self._bury_given_up(message)
            except (SQLAlchemyError, BrokerUnavailable) as error:
                log.warning("a message that the broker gave up on waits (%s)", type(error).__name__)
                eventlet.sleep(backoff.next_pause())
            else:
                ack(channel, message.delivery_tag)
                return

    def _revive(self, message: amqp.Message) -> bool:
        """Put a message back whose delivery limit was reached. False when that is no use, or was done often enough."""
        death = _last_death(plain_headers(message.headers))
        queue, lives = str(death.get("queue")), _count((message.headers or {}).get(LIVES_HEADER)) + 1
        is_ours = queue.startswith(f"{self.container.service_name}.on_")
        if death.get("reason") != "delivery_limit" or not is_ours or lives > MORE_LIVES:
            return False
        try:
            outgoing = copy_of(message, topology.AGAIN, routing_key=queue)
        except (KeyError, UnicodeDecodeError):
            return False
        outgoing.headers[LIVES_HEADER] = lives
        if self.publisher.publish([outgoing]):
            return False  # there is no such queue any more
        log.warning("%s in %s came back unanswered too often; chance %d", outgoing.message_id, queue, lives + 1)
        return True

    def _bury_given_up(self, message: amqp.Message) -> None:
        death = _last_death(plain_headers(message.headers))
        reason = f"the broker gave up: {death.get('reason', 'unknown')}"
        self.bury(str(death.get("queue", self.queue)), message, reason, _count(death.get("count")))

    def bury(self, queue: str, message: amqp.Message, error: str, attempts: int, *, with_body: bool = True) -> None:
        """Store `message` with its reason, committed when this returns. A body may hold what nobody should keep."""
        self._store([self._row(queue, message, error, attempts, with_body=with_body)])

    def bury_all(self, messages: Sequence[tuple[str, amqp.Message, str]]) -> None:
        """Store messages that were never tried, in one transaction, for there may be many: queue, message, reason."""
        self._store([self._row(queue, message, error, attempts=0) for queue, message, error in messages])

    def _store(self, rows: Sequence[dict[str, Any]]) -> None:
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
            "queue": _text(queue),
            "event_type": _text(properties.get("type")),
            "message_id": _text(properties.get("message_id")),
            "correlation_id": _text(properties.get("correlation_id")),
            "body": _text(message.body[:MAX_STORED_BODY])[:MAX_STORED_BODY] if with_body else "",
            "headers": plain_headers(message.headers),
            "error": _text(error)[:4000],
            "attempts": max(0, min(attempts, MAX_ATTEMPTS)),
        }

    def list(
        self, session: Session, limit: int, before: UUID | None, *, replayed: bool = False, **equal: str | None
    ) -> list[dict[str, Any]]:
        """Return the newest dead letters older than `before` that wait for somebody, or those that were replayed.

        `equal` narrows them to one `queue` or `event_type`. Of each body there is only the beginning.
        """
        letters = self.storage.table("dead_letters")
        died = letters.c.replayed_at.is_not(None) if replayed else letters.c.replayed_at.is_(None)
        wanted = [letters.c[name] == value for name, value in equal.items() if value is not None]
        statement = self._select().where(died, *wanted).order_by(letters.c.id.desc()).limit(limit)
        if before is not None:
            statement = statement.where(letters.c.id < before)
        return [self._view(row) for row in session.execute(statement)]

    def summary(self, session: Session, shown: int) -> Summary:
        """Return how many dead letters wait for somebody, and the ids of the newest."""
        letters = self.storage.table("dead_letters")
        waiting = select(letters.c.id).where(letters.c.replayed_at.is_(None))
        newest = waiting.order_by(letters.c.id.desc()).limit(shown)
        count = session.scalars(select(func.count()).select_from(waiting.subquery())).one()
        return {"count": count, "ids": [str(letter) for letter in session.scalars(newest)]}

    def discard(self, session: Session, dead_letter_id: UUID) -> None:
        """Give a dead letter up for good; the log keeps that it was. Raises as replay() does."""
        row = self._waiting(session, dead_letter_id)
        session.execute(
            delete(self.storage.table("dead_letters")).where(self.storage.table("dead_letters").c.id == dead_letter_id)
        )
        log.warning("dead letter %s discarded: %s %s: %s", dead_letter_id, row.queue, row.message_id, row.error)

    def replay(self, session: Session, dead_letter_id: UUID, by: str) -> dict[str, Any]:
        """Put a dead letter back into its queue, once, with all its tries before it; record when, and who did.

        The row is locked until the broker has confirmed, so that two operators cannot replay it twice. Raises
        DeadLetterNotFound, and InvalidState where it was replayed already or has no queue to go back to.
        """
        row = self._waiting(session, dead_letter_id)
        self._put_back(row)
        replayed = update(self.storage.table("dead_letters")).where(
            self.storage.table("dead_letters").c.id == dead_letter_id
        )
        session.execute(replayed.values(replayed_at=func.clock_timestamp(), replayed_by=by))
        log.warning("dead letter %s replayed into %s by %s", dead_letter_id, row.queue, by)
        return self._view(
            session.execute(self._select().where(self.storage.table("dead_letters").c.id == dead_letter_id)).one()
        )

    def _waiting(self, session: Session, dead_letter_id: UUID) -> Row[Any]:
        """Lock a dead letter that was not replayed yet."""
        letters = self.storage.table("dead_letters")
        row = session.execute(select(letters).where(letters.c.id == dead_letter_id).with_for_update()).one_or_none()
        if row is None:
            raise DeadLetterNotFound
        if row.replayed_at is not None:
            when = row.replayed_at.astimezone(UTC)
            raise InvalidState(
                f"This dead letter was replayed already, at {when:%Y-%m-%dT%H:%M:%SZ} by {row.replayed_by}."
            )
        return row

    def _put_back(self, row: Row[Any]) -> None:
        """Publish a dead letter to its queue; returns when the broker has it on disk."""
        service = self.container.service_name
        if row.queue not in {queue_name(service, event) for event in EVENTS.values()}:
            # A call's body was not kept and its caller is gone; anything else is no handler's queue.
            raise InvalidState(f"What died in {row.queue} cannot be replayed: only events can, into their handler.")
        message_id = row.message_id or str(new_id())
        message = OutgoingMessage(
            exchange=topology.AGAIN,
            routing_key=row.queue,
            body=row.body,
            message_id=message_id,
            event_type=row.event_type,
            correlation_id=row.correlation_id,
            headers=propagated_headers(row.headers),
        )
        if not self.publisher.publish([message]):
            return
        if any(queue_name(consumer, event) == row.queue for event in EVENTS.values() for consumer in event.consumers):
            raise BrokerUnavailable  # the queue is there, for the topology is declared, but did not take it
        raise InvalidState(f"The queue {row.queue} does not exist any more.")

    def _select(self) -> Select[Any]:
        """Select what an operator sees: of the body, which may have megabytes, only the beginning."""
        columns = [column for column in self.storage.table("dead_letters").c if column.name != "body"]
        return select(*columns, func.left(self.storage.table("dead_letters").c.body, SHOWN_BODY).label("body"))

    def _view(self, row: Row[Any]) -> dict[str, Any]:
        view = DeadLetterView(
            id=row.id,
            service=self.container.service_name,
            queue=row.queue,
            event=row.event_type,
            message_id=row.message_id,
            correlation_id=row.correlation_id,
            body=row.body,
            headers=row.headers,
            error=row.error,
            attempts=row.attempts,
            died_at=row.created_at,
            replayed_at=row.replayed_at,
            replayed_by=row.replayed_by,
        )
        return view.to_dict()


class DeadLetterStore(DependencyProvider):
    """Gives a service its dead letters: `dead_letters = DeadLetterStore()`."""

    store = DeadLetters()

    def get_dependency(self, worker_ctx: Any) -> DeadLetters:
        """Return them; all workers share them."""
        return self.store


def plain_headers(headers: dict[str, Any] | None) -> dict[str, Any]:
    """Return a message's headers as JSON that PostgreSQL takes, whatever they hold."""
    return {_text(name): _plain(value, MAX_HEADER_DEPTH) for name, value in (headers or {}).items()}


def copy_of(message: amqp.Message, exchange: str, routing_key: str) -> OutgoingMessage:
    """Return `message` addressed anew, with its identity and its trace; to the broker it is one that never died."""
    properties = message.properties
    return OutgoingMessage(
        exchange=exchange,
        routing_key=routing_key,
        body=message.body if isinstance(message.body, str) else message.body.decode(),
        message_id=str(properties["message_id"]),
        event_type=properties.get("type"),
        app_id=properties.get("app_id"),
        correlation_id=properties.get("correlation_id"),
        # Carried over, x-death would make the broker drop the copy as one that goes in circles.
        headers=propagated_headers(message.headers),
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _plain(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if depth and isinstance(value, dict):
        return {_text(name): _plain(one, depth - 1) for name, one in value.items()}
    if depth and isinstance(value, list | tuple):
        return [_plain(one, depth - 1) for one in value]
    if isinstance(value, dict | list | tuple):
        return "(nested too deep)"
    if isinstance(value, float) and math.isfinite(value):
        return value
    return _text(value)


def _last_death(headers: dict[str, Any] | None) -> dict[str, Any]:
    """Return what the broker says of why it gave up; nothing where a sender has put something else there."""
    deaths = (headers or {}).get("x-death")
    first = deaths[0] if isinstance(deaths, list) and deaths else None
    return first if isinstance(first, dict) else {}


def _text(value: Any) -> Any:
    """Return `value` as text that PostgreSQL can store; None stays None."""
    if value is None:
        return None
    text = bytes(value).decode("utf-8", "backslashreplace") if isinstance(value, bytes | memoryview) else str(value)
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
