"""The outbox relay publishes committed events to the broker in their order, and deletes each once it is confirmed.

The commit that wrote an event wakes the relay. Once per interval, one replica also looks for events that a crash
between commit and publish has left.

An event that the broker does not take is put aside by itself, with the reason, and tried again after growing pauses.
All others leave, later events about the same order too: no consumer relies on the order of arrival
(docs/architecture/decisions/0016-refused-events-and-connections.md).
"""

import logging
import time
from collections.abc import Sequence
from typing import Any

import eventlet
from eventlet.event import Event as Signal
from nameko.extensions import DependencyProvider, SharedExtension
from sqlalchemy.exc import SQLAlchemyError

from contracts.events import EVENTS, EXCHANGE
from extensions.messaging.connection import BrokerUnavailable
from extensions.messaging.publisher import ConfirmedPublisher, OutgoingMessage
from extensions.observability.instruments import UNKNOWN, OutboxInstruments
from extensions.observability.metrics import Metrics
from extensions.runtime.backoff import Backoff
from extensions.storage import timers
from extensions.storage.outbox import backlog, delete_rows, make_due, pause_after, postpone_rows, select_due
from extensions.storage.storage import Storage

log = logging.getLogger(__name__)

BATCH = 200
SWEEP, SWEEP_SECONDS = "outbox", 1.0
BACKLOG_SECONDS = 5.0
STOP_SECONDS = 5.0
# The least time between the starts of two batches: events that are committed meanwhile form one batch.
BATCH_INTERVAL_SECONDS = 0.03
# Lines in the log for one batch of refused events.
LOGGED = 5


class OutboxRelay(SharedExtension):
    """One greenlet per service process. Several replicas share the work: rows are locked while they are published."""

    publisher = ConfirmedPublisher()
    storage = Storage()
    metrics = Metrics()

    def __init__(self) -> None:
        super().__init__()
        self._select_due: Any = None
        self._instruments: Any = None
        self._wakeup = Signal()
        self._relay: Any = None
        self._watch: Any = None
        self._stopping = False

    def start(self) -> None:
        """Start the relay. It begins with the events that an earlier process left."""
        if self._relay is not None:
            return
        self._select_due = select_due(self.storage.table("outbox"), BATCH)
        if self.metrics.is_served:
            self._watch = self.container.spawn_managed_thread(self._watch_backlog, identifier="outbox.backlog")
        self._relay = self.container.spawn_managed_thread(self._run, identifier="outbox.relay")

    def setup(self) -> None:
        """Create the instruments, and register for commits."""
        self.storage.on_outbox_commit = self.wake
        self._instruments = OutboxInstruments(self.metrics, self.container.service_name)

    @property
    def broker_problem(self) -> str:
        """What was wrong at the last try to publish, in words; "" if nothing was."""
        return self.publisher.problem

    def wake(self) -> None:
        """Wake the relay: events were committed."""
        if not self._wakeup.ready():
            self._wakeup.send("woken")

    def stop(self) -> None:
        """Publish what the last workers committed, within five seconds, and end."""
        self._stopping = True
        self.wake()
        if self._relay is not None:
            with eventlet.Timeout(STOP_SECONDS, False):
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
            next_batch = time.monotonic() + BATCH_INTERVAL_SECONDS
            try:
                while self._relay_batch(woken=woken) == BATCH:
                    woken = True  # a full batch: there may be more, whether the sweep is due or not
                if missing:
                    log.info("the outbox continues: %s is available again", missing)
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
        """Publish the oldest due events and delete the confirmed ones. Returns how many were due, BATCH at most."""
        outbox = self.storage.table("outbox")
        with self.storage.sessions.begin() as session:
            if not woken and not timers.claim(session, self.storage.table("timers"), SWEEP, SWEEP_SECONDS):
                return 0
            rows = session.execute(self._select_due, {"paused": self.publisher.refusals.paused(EXCHANGE)}).all()
            if not rows:
                return 0
            outcome = self.publisher.publish([self._to_message(row) for row in rows])
            delivered = [row for row in rows if str(row.message_id) in outcome.confirmed]
            delete_rows(session, outbox, delivered)
            put_aside = [(row, outcome.refused[key]) for row in rows if (key := str(row.message_id)) in outcome.refused]
            _log_refused(put_aside)
            postpone_rows(session, outbox, put_aside)
            make_due(session, outbox, [key for exchange, key in outcome.accepted_again if exchange == EXCHANGE])
        self._instruments.relayed((row.event_type for row in delivered), (row.event_type for row, _ in put_aside))
        if outcome.failure is not None:
            raise outcome.failure
        return len(rows)

    def _watch_backlog(self) -> None:
        """Measure the backlog periodically. Not in the sweep, which does not run during outages and high load."""
        while True:
            try:
                with self.storage.sessions() as session:
                    self._instruments.backlog = backlog(session, self.storage.table("outbox"))
            except SQLAlchemyError:
                self._instruments.backlog = UNKNOWN
            eventlet.sleep(BACKLOG_SECONDS)

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


def _log_refused(rows: Sequence[tuple[Any, str]]) -> None:
    for row, reason in rows[:LOGGED]:
        message = "%s %s is put aside for %.0f s after try %d: %s"
        log.error(message, row.event_type, row.message_id, pause_after(row.attempts), row.attempts + 1, reason)
    if len(rows) > LOGGED:
        log.error("%d more events are put aside", len(rows) - LOGGED)
