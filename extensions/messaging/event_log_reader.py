"""Reads the event log (extensions/messaging/event_log.py) while somebody wants it: live, and from an old position.

The connection for live entries opens with the first user and closes LINGER_SECONDS after the last one has left. The
latest entries stay in memory, so that a user that comes back soon needs nothing of the broker. An older position is
read by a connection of its own, a few at a time.
"""

import functools
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple
from uuid import UUID

import amqp
import eventlet
from eventlet.event import Event as Signal
from nameko.extensions import SharedExtension

from contracts.errors import ValidationFailed
from contracts.events import EVENTS
from contracts.ids import made_at, parse_id
from extensions.messaging.connection import ack, close_quietly, connect
from extensions.messaging.event_log import MESSAGE_BYTES
from extensions.messaging.reconnecting_connection import ReconnectingConnection
from extensions.messaging.topology import EVENT_LOG
from extensions.observability.metrics import Metrics
from extensions.runtime.progress import loops_of

log = logging.getLogger(__name__)

PREFETCH = 50
LINGER_SECONDS = 60.0
# The latest entries that stay in memory.
MAX_RECENT, MAX_RECENT_BYTES = 5_000, 8 * 1024 * 1024
# Reading an old position: the whole, and the wait for the next message of a log whose end is not known.
CATCH_UP_SECONDS = 120.0
QUIET_SECONDS = 1.0
OFFSET = "x-stream-offset"
# The wait for the message at a position that the end of the log has not reached yet.
FOUND_SECONDS = 5.0
# A single event has at most 1 MB (inbound.MAX_BODY_BYTES).
MAX_MESSAGE_BYTES = MESSAGE_BYTES + 1024 * 1024


class Position(NamedTuple):
    """The place of an entry in the log: the offset of its message, and its line in it. It never changes."""

    offset: int
    line: int

    def __str__(self) -> str:
        return f"{self.offset}-{self.line}"

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Return the position that str() has spelt. Raises ValueError."""
        offset, _, line = text.partition("-")
        if not (offset.isascii() and offset.isdigit() and line.isascii() and line.isdigit()) or len(text) > 30:
            raise ValueError(text)
        return cls(int(offset), int(line))


START = Position(-1, 0)
"""Before the first entry of an empty log."""


class LogEntry(NamedTuple):
    """One event: its position, its name, its id, its order (or None), and the entry as a line of JSON."""

    position: Position
    event: str
    event_id: str
    order_id: UUID | None
    text: str
    user_id: UUID | None = None


class Gap(NamedTuple):
    """Entries between two positions no longer exist: they were deleted by age or size, or with the whole log."""

    after: Position
    before: Position


def entries_of(message: amqp.Message) -> list[LogEntry]:
    """Return the entries of a message of the log. An entry that is none, or not of its sender, is left out."""
    offset = message.headers[OFFSET]
    service = message.delivery_info["routing_key"]
    if len(message.body) > MAX_MESSAGE_BYTES:
        log.warning("the event log holds a message of %d bytes at %d: it is left out", len(message.body), offset)
        return []
    lines = bytes(message.body).decode(errors="replace").split("\n")
    found = (_entry(Position(offset, number), line, service) for number, line in enumerate(lines))
    return [entry for entry in found if entry is not None]


def _entry(position: Position, line: str, service: str) -> LogEntry | None:
    try:
        fields = json.loads(line)
        name, event_id = fields["event"], parse_id("event_id", fields["event_id"])
        order_id, user_id = _id(fields["order_id"]), _id(fields["data"].get("user_id"))
        kind = EVENTS.get(name)
        if fields["service"] != service or (kind is not None and kind.producer != service):
            raise ValueError("it is an event of another service")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, ValidationFailed) as error:
        log.warning("the entry %s of the event log is left out: %s", position, error)
        return None
    return LogEntry(position, str(name), str(event_id), order_id, line, user_id)


def _id(value: object) -> UUID | None:
    return None if value is None else parse_id("id", value)


class EventLogReader(SharedExtension):
    """The entries of the log for the users of one process."""

    metrics = Metrics()

    def __init__(self) -> None:
        super().__init__()
        self.last: Position | None = None
        """The position of the latest entry; START in an empty log, None until it is known."""
        self._recent: deque[LogEntry] = deque()
        self._recent_bytes = 0
        self._on_entries: list[Callable[[Sequence[LogEntry]], None]] = []
        self._on_connected: list[Callable[[], None]] = []
        self._connection: ReconnectingConnection | None = None
        self._reader: Any = None
        self._closing: Any = None
        self._positioned = Signal()
        self._users = 0
        self._lag = 0.0

    def setup(self) -> None:
        """Export the lag."""
        text = "Age of the latest entry of the event log when it was read; 0 while nobody reads it."
        self.metrics.gauge("event_log_lag_seconds", text, lambda: self._lag if self._connection else 0.0)
        self.metrics.gauge("event_log_readers", "Streams that use the event log.", lambda: self._users)

    def subscribe(
        self, on_entries: Callable[[Sequence[LogEntry]], None], on_connected: Callable[[], None] = lambda: None
    ) -> None:
        """Call `on_entries` with each message's new entries, and `on_connected` where some may have been missed.

        They run in the greenlet that reads the connection, so they must not block.
        """
        self._on_entries.append(on_entries)
        self._on_connected.append(on_connected)

    def enter(self) -> None:
        """Count one more user, and open the connection for the first one. Each user calls leave() once."""
        self._users += 1
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        if self._connection is None:
            self._open()

    def leave(self) -> None:
        """Count one user less."""
        self._users -= 1
        if not self._users and self._connection is not None:
            self._closing = eventlet.spawn_after(LINGER_SECONDS, self._close)

    def await_position(self, seconds: float) -> Position | None:
        """Return `last`, once the connection is open and the log's end is known; None if it is not in time."""
        if not self._positioned.ready():
            self._positioned.wait(timeout=seconds)
        return self.last

    def recent_after(self, after: Position) -> list[LogEntry] | None:
        """Return the entries after this position if all of them are in memory, else None."""
        if self.last == after:
            return []
        if not self._recent or self._recent[0].position > after:
            return None
        return [entry for entry in self._recent if entry.position > after]

    def exists(self, position: Position) -> bool:
        """Ask the broker for the message at this position.

        A live reader may know only the beginning of the latest messages: of the last chunk of the stream, the broker
        sends one after the other. Raises CONNECTION_ERRORS.
        """
        connection = connect(0, self.container.service_name, purpose="catching up")
        try:
            channel, found = connection.channel(), list[amqp.Message]()
            channel.basic_qos(0, 1, False)
            channel.basic_consume(EVENT_LOG, callback=found.append, arguments={OFFSET: position.offset})
            with suppress(TimeoutError):
                connection.drain_events(timeout=FOUND_SECONDS)
            return bool(found) and found[0].headers[OFFSET] == position.offset
        finally:
            close_quietly(connection)

    def read_after(self, after: Position) -> Iterator[list[LogEntry] | Gap]:
        """Yield the entries after `after` up to the latest one, from the broker, in pieces.

        Raises CONNECTION_ERRORS, and TimeoutError (an OSError) after CATCH_UP_SECONDS.
        """
        deadline = time.monotonic() + CATCH_UP_SECONDS
        connection = connect(0, self.container.service_name, purpose="catching up")
        try:
            yield from self._read_after(connection, after, deadline)
        finally:
            close_quietly(connection)

    def _read_after(
        self, connection: amqp.Connection, after: Position, deadline: float
    ) -> Iterator[list[LogEntry] | Gap]:
        channel, waiting = connection.channel(), deque[amqp.Message]()  # the prefetch bounds it
        channel.basic_qos(0, PREFETCH, False)
        channel.basic_consume(EVENT_LOG, callback=waiting.append, arguments={OFFSET: max(after.offset, 0)})
        position, is_first = after, True
        while self.last is None or position < self.last:
            if not waiting:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError("reading the event log took too long")
                try:
                    connection.drain_events(timeout=min(left, QUIET_SECONDS))
                except TimeoutError:
                    if is_first and self.last is not None:
                        continue
                    return  # there is nothing more: the latest messages had no valid entry
                continue
            message = waiting.popleft()
            offset = message.headers[OFFSET]
            if is_first and offset > max(after.offset, 0):
                yield Gap(after, Position(offset, 0))
            is_first = False
            entries = [entry for entry in entries_of(message) if entry.position > after]
            channel.basic_ack(message.delivery_tag)
            position = entries[-1].position if entries else max(position, Position(offset, 0))
            if entries:
                yield entries

    def stop(self) -> None:
        """Close the connection."""
        self._close()

    def kill(self) -> None:
        """Drop the connection without closing it."""
        if self._connection is not None:
            if self._reader is not eventlet.getcurrent():
                self._reader.kill()
            self._connection.abandon()
            self._connection = None

    def _open(self) -> None:
        self._positioned = Signal()
        self._connection = ReconnectingConnection(
            "event_log",
            self.container.service_name,
            self._set_up,
            lambda _error: None,
            loops=loops_of(self.container),
        )
        self._reader = self.container.spawn_managed_thread(self._connection.run, identifier="broker.event_log")

    def _close(self) -> None:
        if self._closing is not None:
            self._closing.cancel()
        self._closing = None
        connection, self._connection = self._connection, None
        if connection is None:
            return
        self._reader.kill()
        connection.close()
        # What is published from now on is not read, so nothing in memory is contiguous with it.
        self._recent.clear()
        self._recent_bytes, self.last = 0, None

    def _set_up(self, connection: amqp.Connection) -> None:
        channel = connection.channel()
        channel.basic_qos(0, PREFETCH, False)
        # The first time, the last message tells where the log ends. After a lost connection, nothing may be missed.
        start: str | int = "last" if self.last is None else self.last.offset + 1
        receive = functools.partial(self._receive, channel)
        channel.basic_consume(EVENT_LOG, callback=receive, arguments={OFFSET: start})
        if self.last is None:
            self._end_if_empty(channel)
        for on_connected in self._on_connected:
            on_connected()

    def _end_if_empty(self, channel: amqp.Channel) -> None:
        """Learn that the log is empty: no last message will come.

        The broker's count is up to some seconds old, and the last message may come before it.
        """
        if channel.queue_declare(EVENT_LOG, passive=True).message_count == 0 and self.last is None:
            self._place(START)

    def _receive(self, channel: amqp.Channel, message: amqp.Message) -> None:
        """Receive one message of the log. A failure here would end the connection, again and again."""
        try:
            self._take(message)
        except Exception:
            log.exception("a message of the event log could not be passed on")
        ack(channel, message.delivery_tag)
        eventlet.sleep(0)  # let sockets take what was sent, before more of a burst comes

    def _take(self, message: amqp.Message) -> None:
        offset = message.headers[OFFSET]
        is_old = self.last is None
        if self.last is not None and offset <= self.last.offset:
            return
        entries = entries_of(message)
        for entry in entries:
            self._recent.append(entry)
            self._recent_bytes += len(entry.text)
        while self._recent and (len(self._recent) > MAX_RECENT or self._recent_bytes > MAX_RECENT_BYTES):
            self._recent_bytes -= len(self._recent.popleft().text)
        if entries:
            self._place(entries[-1].position)
        elif self.last is None:
            self._place(Position(offset, 0))
        if entries and not is_old:
            written = made_at(parse_id("event_id", entries[-1].event_id))
            self._lag = max(0.0, time.time() - written) if written is not None else 0.0
        # The first message was published before anybody listened: a user gets it only if it asks for an older position.
        for on_entries in self._on_entries if entries else ():
            on_entries(entries)

    def _place(self, position: Position) -> None:
        self.last = position
        if not self._positioned.ready():
            self._positioned.send()
