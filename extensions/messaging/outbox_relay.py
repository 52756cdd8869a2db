"""The outbox relay: takes committed events to the broker, in their order, until each is confirmed.

It is woken by the commit that wrote an event. Behind that it sweeps up what a crash in between has left: a timer, so
that one replica at a time does it, once per interval.
"""

import logging
import time
from datetime import timedelta
from typing import Any

import eventlet
from eventlet.event import Event as Signal
from nameko.extensions import DependencyProvider, SharedExtension
from sqlalchemy import Table, bindparam, delete, func, or_, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from contracts.events import EVENTS, EXCHANGE
from extensions.messaging.connection import BrokerUnavailable
from extensions.messaging.publisher import ConfirmedPublisher, OutgoingMessage
from extensions.observability.instruments import UNKNOWN, OutboxInstruments
from extensions.observability.metrics import Metrics
from extensions.runtime.backoff import Backoff
from extensions.storage import timers
from extensions.storage.storage import Storage

log = logging.getLogger(__name__)

BATCH = 200
SWEEP, SWEEP_SECONDS = "outbox", 1.0
BACKLOG_SECONDS = 5.0
MAX_COUNTED = 10_000
LONGEST_RETURN_PAUSE_SECONDS = 60
# Between the beginnings of two batches: what is committed meanwhile goes together.
GATHER_SECONDS = 0.03


class OutboxRelay(SharedExtension):
    """One greenlet per service process. Several replicas share the work: rows are locked while they are published."""

    publisher = ConfirmedPublisher()
    storage = Storage()
    metrics = Metrics()

    def __init__(self) -> None:
        super().__init__()
        self._oldest: Any = None
        self._instruments: Any = None
        self._wakeup = Signal()
        self._relay: Any = None
        self._watch: Any = None
        self._stopping = False

    def start(self) -> None:
        """Begin to relay, with what an earlier process left behind first."""
        if self._relay is not None:
            return
        table = self.storage.table("outbox")
        now = func.clock_timestamp()
        # What is put back for longer than we ever do is from a clock that has been set back since.
        due = or_(table.c.due_at <= now, table.c.due_at > now + timedelta(seconds=LONGEST_RETURN_PAUSE_SECONDS))
        self._oldest = (
            select(table).where(due).order_by(table.c.id).limit(BATCH).with_for_update(skip_locked=True)
        )  # built once: it is asked many times a second
        if self.metrics.is_served:
            self._watch = self.container.spawn_managed_thread(self._watch_backlog, identifier="outbox.backlog")
        self._relay = self.container.spawn_managed_thread(self._run, identifier="outbox.relay")

    def setup(self) -> None:
        """Get ready to be measured, and be told of commits."""
        self.storage.on_outbox_commit = self.wake
        self._instruments = OutboxInstruments(self.metrics, self.container.service_name)

    def wake(self) -> None:
        """Say that something was committed."""
        if not self._wakeup.ready():
            self._wakeup.send("woken")

    def stop(self) -> None:
        """Relay what the last workers committed, within a few seconds, and end."""
        self._stopping = True
        self.wake()
        if self._relay is not None:
            with eventlet.Timeout(5, False):
                self._relay.wait()
            self._relay.kill()
        if self._watch is not None:
            self._watch.kill()

    def _run(self) -> None:
        backoff = Backoff()
        woken, missing = True, ""
        while True:
            stopping = self._stopping
            self._wakeup = Signal()
            next_batch = time.monotonic() + GATHER_SECONDS
            try:
                while self._relay_batch(woken=woken) == BATCH:
                    woken = True  # there is more: it need not be due
                if missing:
                    log.info("the outbox goes on: %s is back", missing)
                backoff.reset()
                pause, missing = SWEEP_SECONDS, ""
            except (BrokerUnavailable, SQLAlchemyError) as error:
                pause = backoff.next_pause()
                missing = "RabbitMQ" if isinstance(error, BrokerUnavailable) else "PostgreSQL"
                log.warning("the outbox waits for %s (%s); next try in %.1f s", missing, type(error).__name__, pause)
                eventlet.sleep(min(pause, SWEEP_SECONDS))
            if stopping:
                return
            woken = self._wakeup.wait(timeout=pause) is not None or bool(missing)
            if not self._stopping:
                eventlet.sleep(max(0.0, next_batch - time.monotonic()))

    def _relay_batch(self, *, woken: bool) -> int:
        """Publish the oldest events that are due, delete those that were confirmed, return how many there were."""
        outbox = self.storage.table("outbox")
        with self.storage.sessions.begin() as session:
            if not woken and not timers.claim(session, self.storage.table("timers"), SWEEP, SWEEP_SECONDS):
                return 0
            rows = session.execute(self._oldest).all()
            if not rows:
                return 0
            returned = self.publisher.publish([self._to_message(row) for row in rows])
            delivered = [row.id for row in rows if str(row.message_id) not in returned]
            if delivered:
                session.execute(delete(outbox).where(outbox.c.id.in_(delivered)))
            if returned:
                self._put_back(session, [row for row in rows if str(row.message_id) in returned])
        self._instruments.relayed(
            (row.event_type for row in rows if str(row.message_id) not in returned), len(returned)
        )
        return len(rows)

    def _watch_backlog(self) -> None:
        """Look at what waits, now and then. Not in the sweep: while there is much to relay, or no broker, it rests."""
        while True:
            try:
                with self.storage.sessions() as session:
                    self._instruments.backlog = _backlog(session, self.storage.table("outbox"))
            except SQLAlchemyError:
                self._instruments.backlog = UNKNOWN
            eventlet.sleep(BACKLOG_SECONDS)

    def _put_back(self, session: Session, rows: list[Any]) -> None:
        """Keep events that no queue took, for later and later tries; the others are not held up by them."""
        outbox = self.storage.table("outbox")
        for row in rows:
            log.error("no queue took %s %s (try %d)", row.event_type, row.message_id, row.attempts + 1)
        session.execute(
            update(outbox)
            .where(outbox.c.id == bindparam("row_id"))
            .values(
                attempts=outbox.c.attempts + 1,
                due_at=func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, bindparam("pause")),
            ),
            [{"row_id": row.id, "pause": float(min(2**row.attempts, LONGEST_RETURN_PAUSE_SECONDS))} for row in rows],
        )

    def _to_message(self, row: Any) -> OutgoingMessage:
        event = EVENTS.get(row.event_type)
        return OutgoingMessage(
            exchange=EXCHANGE,
            routing_key=row.event_type,
            body=row.body,
            message_id=str(row.message_id),
            mandatory=bool(event and event.consumers),
            event_type=row.event_type,
            app_id=self.container.service_name,
            correlation_id=row.correlation_id,
            headers=row.headers,
        )


class Outbox(DependencyProvider):
    """Runs the relay in a service: `outbox = Outbox()`."""

    relay = OutboxRelay()

    def get_dependency(self, worker_ctx: Any) -> OutboxRelay:
        """Return the relay; all workers share it."""
        return self.relay


def _backlog(session: Session, outbox: Table) -> tuple[float, float]:
    """Return how many events wait, MAX_COUNTED at most, and for how many seconds the oldest has."""
    waiting = select(outbox.c.created_at).order_by(outbox.c.id).limit(MAX_COUNTED).subquery()
    age = func.extract("epoch", func.clock_timestamp() - func.min(waiting.c.created_at))
    count, oldest = session.execute(select(func.count(), age).select_from(waiting)).one()
    return float(count), max(0.0, float(oldest or 0))
