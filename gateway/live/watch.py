"""Watches lists that only grow, such as the timeline of an order, for the streams that show them.

The event log says that something may have been added. Then the owning service is asked, for many lists in one call,
because only its list is durable and in order. The event may be in the log before the service has recorded it: then the
service is asked again, after growing pauses. As a safety net every list is asked for once in RECHECK_SECONDS.
"""

import logging
import math
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import eventlet
from eventlet.event import Event as Signal

from contracts.errors import ServiceUnavailable, UpstreamTimeout
from extensions.http.streams.stream import Stream
from extensions.observability.traces import Trace, use_trace
from extensions.runtime.backoff import Backoff
from extensions.runtime.progress import Loop

log = logging.getLogger(__name__)

RECHECK_SECONDS = 15.0
# Events arrive together: they are asked for together.
GATHER_SECONDS = 0.02
# The pauses before an event is asked for again that is not in the list yet. After the last one, the re-check remains.
PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
# Re-checks that are due so soon join a call.
AHEAD_SECONDS = 1.0
MAX_AWAITED = 100


class Item(NamedTuple):
    """An item of a list: its position, the event that it is about, and its bytes in a stream."""

    position: Any
    event_id: str
    data: bytes
    is_last: bool = False
    """Nothing can be added to the list any more."""


class Found(NamedTuple):
    """The new items by list, and whether there are no others."""

    items: Mapping[UUID, Iterable[Item]]
    is_complete: bool


class _List:
    """One list that streams show."""

    __slots__ = ("asked", "awaited", "due", "streams")

    def __init__(self, due: float) -> None:
        self.streams: dict[Stream, None] = {}
        self.awaited: set[str] = set()
        self.asked = 0
        """How often it was asked for in vain since an event was awaited."""
        self.due = due

    def is_due(self, now: float) -> bool:
        """Tell whether to ask for it in a call that is made now. A re-check that is due soon joins the call."""
        return self.due <= (now if self.awaited else now + AHEAD_SECONDS)


class Watch:
    """The lists of one kind, by the id of their subject. One greenlet runs run()."""

    def __init__(
        self,
        name: str,
        fetch: Callable[[dict[UUID, Any]], Found],
        batch: int,
        recheck_seconds: float = RECHECK_SECONDS,
    ) -> None:
        """`fetch` returns what at most `batch` lists have after a position of each; it raises ServiceError."""
        self.name, self._fetch, self._batch, self._recheck_seconds = name, fetch, batch, recheck_seconds
        self._size = batch
        self._lists: dict[UUID, _List] = {}
        self._work = Signal()

    def add(self, key: UUID, stream: Stream) -> None:
        """Show a list in a stream, after the stream's position. It is asked for at once."""
        watched = self._lists.get(key)
        if watched is None:
            watched = self._lists[key] = _List(0.0)
        watched.streams[stream] = None
        watched.due = 0.0
        stream.on_end(lambda stream, _reason: self._remove(key, stream))
        self._wake()

    def expect(self, key: UUID | None, event_id: str) -> None:
        """Ask for a list soon, until it contains this event. Nothing happens if no stream shows it."""
        watched = self._lists.get(key) if key is not None else None
        if watched is None or len(watched.awaited) >= MAX_AWAITED:
            return
        watched.awaited.add(event_id)
        watched.asked = 0
        watched.due = min(watched.due, time.monotonic() + GATHER_SECONDS)
        self._wake()

    def expect_all(self) -> None:
        """Ask for all lists: events may have been missed."""
        for watched in self._lists.values():
            watched.due = 0.0
        self._wake()

    def run(self, loop: Loop) -> None:
        """Serve the streams until this greenlet is killed."""
        backoff = Backoff(0.5, 5.0)
        while True:
            due = min((each.due for each in self._lists.values()), default=None)
            pause = None if due is None else due - time.monotonic()
            if pause is None or pause > 0:
                self._work = Signal()
                if pause is None:
                    loop.report_idle()
                else:
                    loop.report_idle(pause)
                self._work.wait(timeout=pause)
                eventlet.sleep(GATHER_SECONDS)
                continue
            loop.report_progress()
            try:
                self._ask()
                backoff.reset()
                eventlet.sleep(GATHER_SECONDS)
            except (ServiceUnavailable, UpstreamTimeout) as error:
                pause = backoff.next_pause()
                log.warning("streams wait for %s: %s", self.name, error)
                loop.report_idle(pause)
                eventlet.sleep(pause)
            except Exception:
                log.exception("streams of %s could not be served, %d lists at a time", self.name, self._size)
                eventlet.sleep(GATHER_SECONDS)

    def _ask(self) -> None:
        now = time.monotonic()
        due = sorted((each.due, key) for key, each in self._lists.items() if each.is_due(now))[: self._size]
        asked = {key: self._lists[key] for _, key in due}
        awaited = {key: set(each.awaited) for key, each in asked.items()}
        marker = time.monotonic() + RECHECK_SECONDS  # who wants an earlier time during the call sets another
        for each in asked.values():
            each.due = marker
        positions = {key: min(stream.position for stream in each.streams) for key, each in asked.items()}
        try:
            with use_trace(Trace(service="gateway")):
                found = self._fetch(positions)
        except BaseException as error:
            self._postpone(list(asked.values()), error)
            raise
        self._size = min(2 * self._size, self._batch)
        for key, each in asked.items():
            items = list(found.items.get(key, ()))
            each.awaited -= {item.event_id for item in items}
            earlier = each.due if each.due != marker else math.inf
            each.due = min(earlier, self._next_time(each, awaited[key], is_complete=found.is_complete))
            for stream in list(each.streams):
                show(stream, items)

    def _postpone(self, lists: list[_List], error: BaseException) -> None:
        """Have lists asked for again after a failure. One that fails whenever it is asked for delays only itself.

        So after a defect fewer lists are asked for together, in the end each by itself.
        """
        is_defect = not isinstance(error, ServiceUnavailable | UpstreamTimeout)
        due = 0.0
        if is_defect and len(lists) == 1:
            due = time.monotonic() + RECHECK_SECONDS
        elif is_defect:
            self._size = max(1, len(lists) // 2)
        for each in lists:
            each.due = due

    def _next_time(self, watched: _List, awaited: set[str], *, is_complete: bool) -> float:
        """Return when to ask for a list again, after a call that began when these events were awaited."""
        now = time.monotonic()
        if not is_complete:
            return now
        if watched.awaited & awaited:
            if watched.asked < len(PAUSES):
                watched.asked += 1
                return now + PAUSES[watched.asked - 1]
            watched.awaited -= awaited
        return now + self._recheck_seconds * random.uniform(0.8, 1.2)  # noqa: S311  (not for security)

    def _remove(self, key: UUID, stream: Stream) -> None:
        watched = self._lists.get(key)
        if watched is None:
            return
        watched.streams.pop(stream, None)
        if not watched.streams:
            del self._lists[key]

    def _wake(self) -> None:
        if not self._work.ready():
            self._work.send()


def show(stream: Stream, items: Sequence[Item]) -> None:
    """Send the items after the position of a stream, in one piece. Ends the stream after the last one of its list."""
    new = [item for item in items if item.position > stream.position]
    if new:
        stream.position = new[-1].position
        stream.send(b"".join(item.data for item in new))
    if any(item.is_last for item in items):
        stream.end("complete")
