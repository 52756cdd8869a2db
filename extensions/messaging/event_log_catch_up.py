"""Writes into the event log what it did not confirm when the events were published (extensions/messaging/event_log.py).

It has a greenlet and a connection of its own, so that a log that does not respond delays no event. The connection is
open only while there is something to write.
"""

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import amqp
import eventlet
from amqp.exceptions import MessageNacked
from eventlet.event import Event as Signal
from sqlalchemy.exc import SQLAlchemyError

from extensions.messaging.connection import close_quietly, connect
from extensions.messaging.event_log import EventLogWriter, gap_of, message_of
from extensions.messaging.publisher import OPTIONAL_SECONDS, OutgoingMessage
from extensions.runtime.backoff import Backoff
from extensions.runtime.progress import Loop, loops_of
from extensions.storage import unlogged_events
from extensions.storage.database_access import DatabaseAccess

log = logging.getLogger(__name__)

# An earlier process may have left something, and another one may have been killed.
LOOK_SECONDS = 60.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 15.0
# Pieces that are written in one transaction, and the time for that, with the connection.
BATCH, WRITE_SECONDS = 20, 12.0
# What waits for the log, in a database. Beyond that, the oldest half is dropped, and the log gets a gap instead.
MAX_BYTES = 64 * 1024 * 1024


class NotLogged(Exception):
    """The log does not take a message, or not in time; the text says why."""


class EventLogCatchUp:
    """The greenlet of one process."""

    def __init__(self, writer: EventLogWriter, storage: DatabaseAccess, container: Any) -> None:
        self._writer, self._storage, self._container = writer, storage, container
        self._wakeup = Signal()
        self._connection: amqp.Connection | None = None
        self._greenlet: Any = None

    def start(self) -> None:
        """Begin to write what is stored."""
        self._greenlet = self._container.spawn_managed_thread(self._run, identifier="outbox.event_log")

    def stop(self) -> None:
        """Stop writing; what is stored stays."""
        if self._greenlet is not None:
            self._greenlet.kill()

    def wake(self) -> None:
        """Write soon: something was stored."""
        if not self._wakeup.ready():
            self._wakeup.send("woken")

    def _run(self) -> None:
        """Write what is stored, whenever there is something, until the greenlet is killed."""
        backoff = Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        with loops_of(self._container).running("outbox.event_log") as loop:
            while True:
                loop.report_progress()
                self._wakeup = Signal()
                try:
                    self._write_all(loop)
                except Exception as error:  # noqa: BLE001  (no error may end the loop)
                    pause = backoff.next_pause()
                    log.warning(
                        "the event log lacks events (%s: %s); next try in %.1f s", type(error).__name__, error, pause
                    )
                    self._bound()
                    loop.report_idle(pause)
                    eventlet.sleep(pause)
                else:
                    backoff.reset()
                    loop.report_idle(LOOK_SECONDS)
                    self._wakeup.wait(timeout=LOOK_SECONDS)

    def _write_all(self, loop: Loop) -> None:
        """Write until nothing is left. Then events are logged together again, unless the log is too slow for that."""
        try:
            seconds = 0.0
            while (found := self._write_some()) is not None:
                seconds = found
                loop.report_progress()
        finally:
            self._close()
        if self._writer.is_behind and seconds < OPTIONAL_SECONDS:
            log.info("the event log has caught up")
            self._writer.is_behind = False

    def _write_some(self) -> float | None:
        """Write the oldest pieces. Returns how long the log took, in seconds; None if nothing is left to write."""
        with self._storage.sessions.begin() as session:
            table = self._storage.table(unlogged_events.NAME)
            pieces = unlogged_events.lock_oldest(session, table, BATCH)
            if not pieces:
                return None
            with eventlet.Timeout(WRITE_SECONDS, NotLogged("it does not confirm in time")):
                seconds = self._publish([message_of(piece.body, self._container.service_name) for piece in pieces])
            unlogged_events.remove(session, table, [piece.id for piece in pieces])
        return seconds

    def _publish(self, messages: Sequence[OutgoingMessage]) -> float:
        """Write messages and wait for their confirms. Returns the seconds that the slowest took. Raises NotLogged."""
        channel, returned = self._open_channel(), []
        channel.events["basic_return"].add(lambda *_: returned.append(True))
        slowest = 0.0
        for message in messages:
            began = time.monotonic()
            try:
                channel.basic_publish_confirm(
                    message.to_amqp(), message.exchange, message.routing_key, mandatory=message.mandatory
                )
            except MessageNacked:
                raise NotLogged("it could not store a message") from None
            if returned:
                raise NotLogged("its queue is missing")
            slowest = max(slowest, time.monotonic() - began)
        channel.close()
        return slowest

    def _open_channel(self) -> amqp.Channel:
        if self._connection is None:
            self._connection = connect(0, self._container.service_name, purpose="event log")
        return self._connection.channel()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            close_quietly(connection)

    def _bound(self) -> None:
        """Drop the oldest pieces if there are too many. A gap in the log then says so."""
        with suppress(SQLAlchemyError), self._storage.sessions.begin() as session:
            table = self._storage.table(unlogged_events.NAME)
            dropped = unlogged_events.drop_oldest(session, table, MAX_BYTES)
            if dropped is not None:
                gap = gap_of(self._container.service_name, dropped.since, dropped.until)
                unlogged_events.add_first(session, table, gap, dropped.since)
                log.error("the event log will never have %d messages: too many wait for it", dropped.number)
