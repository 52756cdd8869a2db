"""The outbox relay publishes committed events, the oldest first, and deletes each event that the broker has confirmed.

The commit that wrote an event wakes the relay. After a crash between commit and publish nothing would wake it. So one
instance also looks for events once every SWEEP_SECONDS.

An event that the broker refuses is postponed with the reason, and tried again after growing pauses. The events after it
are published meanwhile, even if they are about the same order: no consumer relies on the sequence of arrival
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
from extensions.messaging.event_log import EventLogWriter
from extensions.messaging.event_log_catch_up import EventLogCatchUp
from extensions.messaging.publisher import ConfirmedPublisher, OutgoingMessage
from extensions.observability.instruments import UNKNOWN, OutboxInstruments
from extensions.observability.metrics import Metrics
from extensions.runtime.backoff import Backoff
from extensions.runtime.progress import Loop, loops_of
from extensions.storage import timers, unlogged_events
from extensions.storage.database_access import DatabaseAccess
from extensions.storage.outbox import backlog, delete_rows, make_due, pause_after, postpone_rows, select_due

log = logging.getLogger(__name__)

BATCH = 200
SWEEP, SWEEP_SECONDS = "outbox", 1.0
BACKLOG_SECONDS = 5.0
STOP_SECONDS = 5.0
# The least time between the starts of two batches. Events that are committed in this time form one batch.
BATCH_INTERVAL_SECONDS = 0.03
# The most lines in the log for one batch of refused events.
LOGGED = 5


class OutboxRelay(SharedExtension):
    """One greenlet in each service process. Rows are locked while they are published, so instances share the work."""

    publisher = ConfirmedPublisher()
    storage = DatabaseAccess()
    metrics = Metrics()

    def __init__(self) -> None:
        super().__init__()
        self._select_due: Any = None
        self._instruments: Any = None
        self._log: Any = None
        self._catch_up: Any = None
        self._wakeup = Signal()
        self._relay: Any = None
        self._watch: Any = None
        self._progress = Loop("outbox.relay")
        self._stopping = False

    def start(self) -> None:
        """Start the relay. It first publishes the events that an earlier process left."""
        if self._relay is not None:
            return
        self._select_due = select_due(self.storage.table("outbox"), BATCH)
        if self.metrics.is_served:
            self._watch = self.container.spawn_managed_thread(self._watch_backlog, identifier="outbox.backlog")
        self._catch_up.start()
        self._relay = self.container.spawn_managed_thread(self._run, identifier="outbox.relay")

    def setup(self) -> None:
        """Create the instruments, and register for commits."""
        self.storage.on_outbox_commit = self.wake
        self._instruments = OutboxInstruments(self.metrics, self.container.service_name)
        self._log = EventLogWriter(self.container.service_name)
        self._catch_up = EventLogCatchUp(self._log, self.storage, self.container)
        text = "Whether events are published without the event log, which did not confirm: 0 or 1."
        self.metrics.gauge("event_log_behind", text, lambda: float(self._log.is_behind))

    @property
    def broker_problem(self) -> str:
        """Why the last try to publish failed, in words; "" if it did not fail."""
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
        if self._catch_up is not None:
            self._catch_up.stop()

    def _run(self) -> None:
        with loops_of(self.container).running("outbox.relay") as self._progress:
            self._relay_all()

    def _relay_all(self) -> None:
        backoff = Backoff()
        woken, missing = True, ""
        while True:
            stopping = self._stopping
            self._wakeup = Signal()
            next_batch = time.monotonic() + BATCH_INTERVAL_SECONDS
            try:
                while self._relay_batch(woken=woken) == BATCH:
                    woken = True  # the batch was full, so there may be more events: look again now
                if missing:
                    log.info("the outbox continues: %s is available again", missing)
                backoff.reset()
                pause, missing = SWEEP_SECONDS, ""
            except (BrokerUnavailable, SQLAlchemyError) as error:
                pause = backoff.next_pause()
                missing = "RabbitMQ" if isinstance(error, BrokerUnavailable) else "PostgreSQL"
                log.warning("the outbox waits for %s (%s); next try in %.1f s", missing, type(error).__name__, pause)
                self._progress.report_idle(SWEEP_SECONDS)
                eventlet.sleep(min(pause, SWEEP_SECONDS))
            if stopping:
                return
            self._progress.report_idle(pause)
            woken = self._wakeup.wait(timeout=pause) is not None or bool(missing)
            if not self._stopping:
                eventlet.sleep(max(0.0, next_batch - time.monotonic()))

    def _relay_batch(self, *, woken: bool) -> int:
        """Publish the oldest due events, at most BATCH, and delete the confirmed ones. Returns how many were due."""
        self._progress.report_progress()
        outbox = self.storage.table("outbox")
        with self.storage.sessions.begin() as session:
            if not woken and not timers.claim(session, self.storage.table("timers"), SWEEP, SWEEP_SECONDS):
                return 0
            rows = session.execute(self._select_due, {"paused": self.publisher.refusals.paused(EXCHANGE)}).all()
            if not rows:
                return 0
            entries = self._log.messages(rows)
            outcome = self.publisher.publish([*map(self._to_message, rows), *entries])
            delivered = [row for row in rows if str(row.message_id) in outcome.confirmed]
            delete_rows(session, outbox, delivered)
            postponed = [(row, outcome.refused[key]) for row in rows if (key := str(row.message_id)) in outcome.refused]
            _log_refused(postponed)
            postpone_rows(session, outbox, postponed)
            unlogged = self._log.unlogged(entries, outcome, [*delivered, *(row for row, _ in postponed)])
            unlogged_events.add(session, self.storage.table(unlogged_events.NAME), unlogged)
            make_due(session, outbox, [key for exchange, key in outcome.accepted_again if exchange == EXCHANGE])
        if unlogged:
            self._catch_up.wake()
        self._instruments.relayed((row.event_type for row in delivered), (row.event_type for row, _ in postponed))
        if outcome.failure is not None:
            raise outcome.failure
        return len(rows)

    def _watch_backlog(self) -> None:
        """Measure the backlog periodically. The sweep cannot do it: it does not run during outages and high load."""
        with loops_of(self.container).running("outbox.backlog") as loop:
            while True:
                loop.report_progress()
                try:
                    with self.storage.sessions() as session:
                        self._instruments.backlog = backlog(session, self.storage.table("outbox"))
                except SQLAlchemyError:
                    self._instruments.backlog = UNKNOWN
                loop.report_idle(BACKLOG_SECONDS)
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
        message = "%s %s is postponed for %.0f s after try %d: %s"
        log.error(message, row.event_type, row.message_id, pause_after(row.attempts), row.attempts + 1, reason)
    if len(rows) > LOGGED:
        log.error("%d more events are postponed", len(rows) - LOGGED)
