"""The stream of all events of the suite, for administrators: each entry of the event log, as it passes."""

import json
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import eventlet

from contracts.errors import ValidationFailed
from extensions.http.streams.encoding import encode, position_only
from extensions.http.streams.stream import BUFFER_BYTES, Stream
from extensions.messaging.connection import CONNECTION_ERRORS
from extensions.messaging.event_log import GAP
from extensions.messaging.event_log_reader import EventLogReader, Gap, LogEntry, Position

log = logging.getLogger(__name__)

# Streams whose old position is not in memory: so many are served at a time, each by a greenlet of its own.
MAX_CATCHING_UP = 4
POSITION_SECONDS = 5.0
# After the log's end is known, the rest of the same write of the broker arrives.
SETTLE_SECONDS = 0.05
# A client that is behind gets the next piece when it has taken this much. It may take this long.
ROOM_BYTES = BUFFER_BYTES // 4
ROOM_SECONDS = 30.0
PIECE_BYTES = BUFFER_BYTES // 4


def position_of(header: str | None) -> Position | None:
    """Return the position of a Last-Event-ID, None without one. Raises ValidationFailed."""
    if not header:
        return None
    try:
        return Position.parse(header)
    except ValueError:
        message = "must be the id of an event of this stream, such as 1024-0"
        raise ValidationFailed.field("Last-Event-ID", message) from None


def item_of(entry: LogEntry) -> bytes:
    """Return an entry as an event of the stream."""
    if entry.event == GAP:
        return encode(json.dumps(json.loads(entry.text)["data"]), event=GAP, event_id=str(entry.position))
    return encode(entry.text, event_id=str(entry.position))


class EventFeed:
    """The streams of administrators."""

    def __init__(self, reader: EventLogReader, spawn: Callable[..., Any]) -> None:
        """`spawn(fn, identifier=...)` starts greenlets."""
        self._reader, self._spawn = reader, spawn
        self._live: dict[Stream, None] = {}
        self._joining: deque[tuple[Stream, Position | None]] = deque()  # as many as there may be streams
        self._workers = 0

    def on_entries(self, entries: Sequence[LogEntry]) -> None:
        """Send new entries to the streams that have caught up."""
        if not self._live:
            return
        data, last = b"".join(map(item_of, entries)), entries[-1].position
        for stream in list(self._live):
            if stream.position < entries[0].position:
                stream.position = last
                stream.send(data)
            elif stream.position < last:
                _send_after(stream, entries)

    def add(self, stream: Stream, after: Position | None) -> None:
        """Show the events after a position in a stream; with None, those from now on."""
        stream.on_end(lambda stream, _reason: self._live.pop(stream, None))
        self._joining.append((stream, after))
        if self._workers < MAX_CATCHING_UP:
            self._workers += 1
            self._spawn(self._join_all, identifier="live.catch_up")

    def _join_all(self) -> None:
        try:
            while self._joining:
                self._join(*self._joining.popleft())
        finally:
            self._workers -= 1

    def _join(self, stream: Stream, after: Position | None) -> None:
        """Bring a stream up to the present. One that cannot be is ended: its client comes back with its position."""
        try:
            if not stream.ended and not self._catch_up(stream, after):
                stream.end("unavailable")
        except CONNECTION_ERRORS as error:
            log.warning("a stream of events could not catch up: %s", error or type(error).__name__)
            stream.end("unavailable")
        except Exception:
            log.exception("a stream of events could not catch up")
            stream.end("unavailable")

    def _catch_up(self, stream: Stream, after: Position | None) -> bool:
        last = self._reader.await_position(POSITION_SECONDS)
        if last is None:
            return False
        if after is None:
            eventlet.sleep(SETTLE_SECONDS)
            self._begin_at_end(stream)
            return True
        stream.position = after
        if after.offset > last.offset and not self._reader.exists(after):  # the log was deleted, and begins anew
            stream.send(_gap(Gap(after, last)))
            self._begin_at_end(stream)
            return True
        if self._reader.recent_after(after) is None:
            for found in self._reader.read_after(after):
                if isinstance(found, Gap):
                    stream.send(_gap(found))
                elif not self._send_patiently(stream, found):
                    return False
        while _size(rest := self._reader.recent_after(stream.position) or []) > PIECE_BYTES:
            if not self._send_patiently(stream, rest):
                return False
        return self._begin_live(stream)

    def _begin_at_end(self, stream: Stream) -> None:
        last = self._reader.last
        assert last is not None
        stream.position = last
        if last.offset >= 0:
            stream.send(position_only(str(last)))
        if not stream.ended:
            self._live[stream] = None

    def _begin_live(self, stream: Stream) -> bool:
        """Send what came meanwhile, and go on with the live entries. Nothing else runs in between."""
        rest = self._reader.recent_after(stream.position)
        if rest is None:
            rest = []
            if self._reader.last is None or stream.position < self._reader.last:
                return False  # more came than fits into memory
        _send_after(stream, rest)
        if not stream.ended:
            self._live[stream] = None
        return True

    def _send_patiently(self, stream: Stream, entries: Iterable[LogEntry]) -> bool:
        """Send entries as fast as the client takes them. False if it does not."""
        piece: list[LogEntry] = []
        size = 0
        for entry in entries:
            piece.append(entry)
            size += len(entry.text)
            if size >= PIECE_BYTES:
                if not _await_room(stream):
                    return False
                _send_after(stream, piece)
                piece, size = [], 0
        if not _await_room(stream):
            return False
        _send_after(stream, piece)
        return not stream.ended


def _await_room(stream: Stream) -> bool:
    with eventlet.Timeout(ROOM_SECONDS, False):
        while not stream.ended and (stream.buffered > ROOM_BYTES or not stream.is_open):
            eventlet.sleep(0.02)
    return not stream.ended and stream.buffered <= ROOM_BYTES


def _size(entries: Iterable[LogEntry]) -> int:
    return sum(len(entry.text) for entry in entries)


def _send_after(stream: Stream, entries: Iterable[LogEntry]) -> None:
    new = [entry for entry in entries if entry.position > stream.position]
    if new:
        stream.position = new[-1].position
        stream.send(b"".join(map(item_of, new)))


def _gap(gap: Gap) -> bytes:
    """Return the event that tells a client that events between two positions are gone."""
    return encode(json.dumps({"after": str(gap.after), "before": str(gap.before)}), event=GAP)
