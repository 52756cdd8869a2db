"""One open stream: writes to its socket without waiting, and keeps what the client has not taken yet, up to a bound.

No greenlet belongs to a stream. The hub of eventlet calls it when its client closes, and when a socket that was full
takes bytes again.
"""

import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from socket import socket
from typing import Any

from eventlet import hubs

from extensions.http.streams.encoding import encode
from extensions.security.access_tokens import AccessToken

log = logging.getLogger(__name__)

BUFFER_BYTES = 256 * 1024
UNOPENED_BUFFER_BYTES = 2 * 1024 * 1024
# What a client may send during a stream. It is dropped: there is nothing to ask for.
MAX_RECEIVED_BYTES = 64 * 1024
READ_BYTES = 4096


class Stream:
    """A response that goes on. `send` may be called at any time, also before the head of the response was sent."""

    __slots__ = (
        "_close",
        "_on_end",
        "_reading",
        "_received",
        "_sock",
        "_waiting",
        "_writing",
        "behind_since",
        "buffered",
        "created",
        "ended",
        "ends_at",
        "kind",
        "may_be_queued",
        "needs_admin",
        "position",
        "slot",
        "token",
    )

    def __init__(self, kind: str, token: AccessToken, ends_at: float, slot: int, *, needs_admin: bool = False) -> None:
        """`kind` is a label of metrics, `ends_at` a time of time.monotonic()."""
        self.kind, self.token, self.ends_at, self.slot, self.needs_admin = kind, token, ends_at, slot, needs_admin
        self.created = time.monotonic()
        self.position: Any = None
        """The position of the last event that was sent; its meaning is that of the sender."""
        self.ended = ""
        """Why it has ended, "" while it has not."""
        self.buffered = 0
        """How many bytes wait for the client."""
        self.behind_since = 0.0
        """Since when the client takes none of the bytes that wait for it (time.monotonic()), 0 if none wait."""
        self.may_be_queued = True
        """False if the kernel holds nothing for the client: it held nothing, and nothing was written since."""
        self._waiting: deque[bytes] = deque()
        self._sock: socket | None = None
        self._close: Callable[[], None] = _nothing
        self._on_end: list[Callable[[Stream, str], None]] = []
        self._reading: Any = None  # listeners of the hub
        self._writing: Any = None
        self._received = 0

    def on_end(self, call: Callable[["Stream", str], None]) -> None:
        """Call `call(stream, reason)` once when the stream ends, at once if it has ended. It must not block."""
        if self.ended:
            call(self, self.ended)
        else:
            self._on_end.append(call)

    @property
    def is_open(self) -> bool:
        """True while it has a client: the head was sent, and it has not ended."""
        return self._sock is not None and not self.ended

    def take_first(self) -> bytes:
        """Return what was sent before the head of the response, which is sent together with it."""
        first = b"".join(self._waiting)
        self._waiting.clear()
        self.buffered = 0
        return first

    def open(self, sock: socket, close: Callable[[], None]) -> None:
        """Begin to write to a non-blocking socket, after the head. `close` is called once, at the end."""
        self._sock, self._close = sock, close
        if self.ended:
            self._finish()
            return
        hub = hubs.get_hub()
        self._reading = hub.add(hub.READ, sock.fileno(), self._on_readable, self._on_error, _nothing)
        self._write_waiting()

    def send(self, data: bytes) -> None:
        """Send bytes, or keep them for the client. Ends the stream of a client that is BUFFER_BYTES behind.

        A client that was not behind may get more at once.
        """
        if self.ended or not data:
            return
        if self._sock is not None and not self._waiting:
            data = self._write(data)
        if not data or self._is_over():
            return
        # Before the head is sent nobody can have read anything; then the first events of a long list wait here.
        limit = BUFFER_BYTES if self._sock is not None else UNOPENED_BUFFER_BYTES
        if self.buffered and self.buffered + len(data) > limit:
            self.end("slow")
            return
        self._waiting.append(data)
        self.buffered += len(data)
        self._await_writable()

    def end(self, reason: str) -> None:
        """End the stream. A client that is still connected is told the reason, if it takes the bytes at once."""
        if self.ended:
            return
        last = encode(f'{{"reason":"{reason}"}}', event="end")
        if self._sock is None:
            self._waiting.append(last)  # it is sent with the head
        elif not self._waiting and reason != "client":
            with suppress(OSError):
                self._sock.send(last)
        self.ended = reason
        calls, self._on_end = self._on_end, []
        for call in calls:
            try:
                call(self, reason)
            except Exception:
                log.exception("the end of a stream could not be recorded")
        if self._sock is not None:
            self._finish()

    def _is_over(self) -> bool:
        return bool(self.ended)

    def _finish(self) -> None:
        self._waiting.clear()
        self.buffered = 0
        hub = hubs.get_hub()
        for listener in (self._reading, self._writing):
            if listener is not None:
                hub.remove(listener)
        self._reading = self._writing = None
        close, self._close = self._close, _nothing
        close()

    def _write(self, data: bytes) -> bytes:
        """Write what the socket takes now. Returns the rest."""
        assert self._sock is not None
        self.may_be_queued = True
        try:
            return data[self._sock.send(data) :]
        except BlockingIOError:
            return data
        except OSError:
            self.end("client")
            return b""

    def _await_writable(self) -> None:
        """Have the hub call when the socket takes bytes again."""
        if self._sock is None or self._writing is not None:
            return
        self.behind_since = time.monotonic()
        hub = hubs.get_hub()
        self._writing = hub.add(hub.WRITE, self._sock.fileno(), self._on_writable, self._on_error, _nothing)

    def _on_writable(self, _fileno: int) -> None:
        self._write_waiting()

    def _write_waiting(self) -> None:
        while self._waiting:
            data = self._waiting.popleft()
            rest = self._write(data)
            if self._is_over():
                return
            self.buffered -= len(data) - len(rest)
            if rest:
                self._waiting.appendleft(rest)
                self._await_writable()
                if len(rest) < len(data):
                    self.behind_since = time.monotonic()
                return
        self.behind_since = 0.0
        if self._writing is not None:
            hubs.get_hub().remove(self._writing)
            self._writing = None

    def _on_readable(self, _fileno: int) -> None:
        """Find out that the client has closed. What it sends is dropped: another request on this connection."""
        assert self._sock is not None
        try:
            received = len(self._sock.recv(READ_BYTES))
            self._received += received
            if received and self._received <= MAX_RECEIVED_BYTES:
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self.end("client")

    def _on_error(self, *_error: Any) -> None:
        self.end("client")


def _nothing(*_arguments: Any) -> None:
    """Do nothing."""
