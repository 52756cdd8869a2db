"""All streams of a process: how many there may be, their heartbeats, and their end before their access token expires.

One greenlet, `http.streams`, serves all of them. In each tenth of a second it visits some of the streams, so the
heartbeats of a thousand streams are spread over 15 s: seven at a time.
"""

import random
import time
from collections import Counter
from functools import partial
from typing import Any
from uuid import UUID

import eventlet
from eventlet.event import Event as Signal
from nameko import config
from nameko.extensions import SharedExtension

from contracts.errors import ServiceError, ServiceUnavailable
from contracts.users import Role
from extensions.http.message.errors import TooManyAtOnce
from extensions.http.message.request import HttpRequest
from extensions.http.message.response import Response
from extensions.http.routing.authentication import AccessTokens
from extensions.http.routing.declaration import EVENT_STREAM
from extensions.http.streams.encoding import COMMENT, opening
from extensions.http.streams.stream import Stream
from extensions.observability.metrics import Metrics
from extensions.runtime.parsed_settings import by_environment
from extensions.runtime.progress import LOCAL_SECONDS, loops_of

MAX_STREAMS = 1500
HEARTBEAT_SECONDS = 15
TICK_SECONDS = 0.1
# A stream ends after this time, randomly shortened by up to SPREAD, so that streams move to a new gateway.
MAX_SECONDS, SPREAD = 600.0, 0.2
# It ends this long before the access token expires; randomly, so that streams do not all come back together.
BEFORE_EXPIRY_SECONDS = (5.0, 30.0)
# A client that has taken nothing for this long is dropped, however little waits for it.
STUCK_SECONDS = 30.0
# A stream whose response was never sent (its request ended first) is given up after this time.
UNOPENED_SECONDS = 30.0
# Why streams end: the client closed, it was slow, its time was over, the session ended or lost the role, this process
# stops, what the stream shows could not be read, or is complete.
REASONS = ("client", "slow", "rotation", "revoked", "shutdown", "unavailable", "complete")
RETRY_MS = 2000
RETRY_SECONDS = 5
# So many streams are visited before other greenlets run.
VISITS = 20


class TooManyStreams(ServiceUnavailable):
    """The process serves as many streams as it may."""

    detail = "As many streams are open as this gateway serves. Try again shortly, or ask for the resource itself."


class StreamResponse(Response):
    """The head of a response that goes on as `stream`."""

    def __init__(self, stream: Stream) -> None:
        # no-transform: a proxy that compresses would hold back events. X-Accel-Buffering is for nginx.
        super().__init__(headers={"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"})
        self.stream = stream
        self.headers["Content-Type"] = EVENT_STREAM

    def finalize(self, request: HttpRequest) -> "StreamResponse":
        """Add the headers that depend on the request. The end of the connection ends the body."""
        self.headers["X-Request-ID"] = request.trace.request_id
        self.headers |= request.limit_headers
        self.content = self.stream.take_first()
        return self


class Streams(SharedExtension):
    """The open streams of a process."""

    metrics = Metrics()
    tokens = AccessTokens()

    def __init__(self) -> None:
        super().__init__()
        self._streams: dict[Stream, None] = {}
        self._of_user: Counter[UUID] = Counter()
        self._max, self._max_of_user = MAX_STREAMS, 0
        self._slot = 0
        self._work = Signal()
        self._ended: dict[str, Any] = {}  # counters by reason
        self._is_closed = False
        self._visitor: Any = None

    def setup(self) -> None:
        """Read the settings, and create the metrics."""
        self._max = int(config.get("HTTP_MAX_STREAMS", MAX_STREAMS))
        of_user = by_environment("HTTP_MAX_STREAMS_PER_USER")
        self._max_of_user = 0 if of_user in {None, False, "off"} else int(of_user)
        for kind in ("order", "admin", "notifications", "import"):
            self.metrics.gauge("http_streams", "Open streams.", partial(self.count, kind), kind=kind)
        ended = "Streams that have ended, by reason."
        self._ended = {why: self.metrics.counter("http_streams_ended_total", ended, reason=why) for why in REASONS}
        text = "Bytes that wait for the clients of streams, in this process."
        self.metrics.gauge("http_streams_buffered_bytes", text, lambda: sum(each.buffered for each in self._streams))

    def start(self) -> None:
        """Start the greenlet that serves all streams."""
        if self._visitor is None:
            self._visitor = self.container.spawn_managed_thread(self._run, identifier="http.streams")

    def stop(self) -> None:
        """End the greenlet. The server has ended the streams before."""
        if self._visitor is not None:
            self._visitor.kill()

    def count(self, kind: str) -> int:
        """Return the number of streams of a kind."""
        return sum(stream.kind == kind for stream in self._streams)

    def create(self, kind: str, request: HttpRequest, *, needs_admin: bool = False) -> Stream:
        """Return a stream for the caller of `request`, to be returned in a StreamResponse. It counts from now on.

        Raises TooManyStreams, and TooManyAtOnce if the caller has as many as one user may have.
        """
        token = request.token
        assert token is not None, "a stream needs an authenticated caller"
        if self._is_closed or len(self._streams) >= self._max:
            raise TooManyStreams(retry_after=RETRY_SECONDS)
        if self._max_of_user and self._of_user[token.user_id] >= self._max_of_user:
            raise TooManyAtOnce.over(self._max_of_user)
        self._slot = (self._slot + 1) % _slots()
        ends_at = _end_time(token.expires_at.timestamp() - time.time())
        stream = Stream(kind, token, ends_at, self._slot, needs_admin=needs_admin)
        stream.on_end(self._forget)
        stream.send(opening(RETRY_MS) + COMMENT)
        self._streams[stream] = None
        self._of_user[token.user_id] += 1
        if not self._work.ready():
            self._work.send()
        return stream

    def close(self) -> None:
        """End all streams; their clients connect to another gateway, or to this one after its restart."""
        self._is_closed = True
        for stream in list(self._streams):
            stream.end("shutdown")

    def _forget(self, stream: Stream, reason: str) -> None:
        del self._streams[stream]
        user = stream.token.user_id
        self._of_user[user] -= 1
        if not self._of_user[user]:
            del self._of_user[user]
        self._ended[reason].inc()

    def _run(self) -> None:
        with loops_of(self.container).running("http.streams", LOCAL_SECONDS) as loop:
            slot = 0
            while True:
                if not self._streams:
                    self._work = Signal()
                    loop.report_idle()
                    self._work.wait()
                loop.report_progress()
                slot = (slot + 1) % _slots()
                self._visit_all(slot)
                eventlet.sleep(TICK_SECONDS)

    def _visit_all(self, slot: int) -> None:
        now, visits = time.monotonic(), 0
        for stream in list(self._streams):
            if stream.ended or (stream.slot != slot and stream.ends_at > now):
                continue
            self._visit(stream, now)
            visits += 1
            if visits % VISITS == 0:
                eventlet.sleep(0)

    def _visit(self, stream: Stream, now: float) -> None:
        """End a stream whose time has come, else send a comment."""
        reason = ""
        if stream.ends_at <= now:
            reason = "rotation"
        elif not self._may_go_on(stream):
            reason = "revoked"
        elif stream.behind_since and now - stream.behind_since > STUCK_SECONDS:
            reason = "slow"
        elif not stream.is_open and now - stream.created > UNOPENED_SECONDS:
            reason = "client"
        if reason:
            stream.end(reason)
        elif stream.is_open and not stream.buffered:
            stream.send(COMMENT)

    def _may_go_on(self, stream: Stream) -> bool:
        """Tell whether the account may still read: the session has not ended, and it has still the role."""
        try:
            token = self.tokens.verified.current(stream.token)
        except ServiceError:
            return False
        return not stream.needs_admin or Role.ADMIN in token.roles


def _slots() -> int:
    """Return the number of ticks in which each stream is visited once."""
    return round(HEARTBEAT_SECONDS / TICK_SECONDS)


def _end_time(valid_for: float) -> float:
    """Return when a stream ends (time.monotonic()), for an access token that is valid for so many seconds."""
    longest = MAX_SECONDS * random.uniform(1 - SPREAD, 1.0)  # noqa: S311  (not for security)
    margin = random.uniform(*BEFORE_EXPIRY_SECONDS)  # noqa: S311
    return time.monotonic() + min(longest, max(valid_for - margin, valid_for / 2))
