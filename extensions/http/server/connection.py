"""One HTTP/1.1 connection: reads requests within time and size limits, and writes responses.

Not eventlet's WSGI server, because that one limits neither the time nor the size of a request, and sends its own errors
as plain text.
"""

import io
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from socket import SHUT_RD, SHUT_RDWR, SHUT_WR, socket
from typing import Any

from extensions.http.message.errors import MalformedRequest, PayloadTooLarge, RequestTimeout
from extensions.http.server import body_stream, timed_socket
from extensions.http.server.kernel import discard_at_close, queued_bytes
from extensions.http.server.parser import MAX_LINE_BYTES, RequestHead, parse_head, read_chunked, read_exactly

IDLE_SECONDS = 75.0
# From its first byte, a request including its body must arrive within this time. REQUEST_SECONDS and
# LINGER_SECONDS together are ten seconds.
REQUEST_SECONDS = 8.0
# REQUEST_SECONDS is randomly shortened by up to this share: slow clients that connected together time out apart.
SPREAD = 0.15
# Each piece of a response must be written within this time, however little the client reads at a time.
WRITE_SECONDS = 8.0
PIECE_BYTES = 64 * 1024
LINGER_SECONDS = 2.0
MAX_LINGER_BYTES = 32 * 1024 * 1024


class Connection:
    """The connection of one client. Per request: `read_head`, then `read_body` if needed, then `send`."""

    def __init__(self, sock: socket, max_body: int) -> None:
        """`sock` is non-blocking, `max_body` is in bytes.

        The socket is a plain one. eventlet's green socket consists of eleven more objects, and the garbage collector
        would stop all requests to traverse those of thousands of slow clients.
        """
        self._sock, self._max_body = sock, max_body
        self._timed_reader = timed_socket.TimedReader(sock)
        self._reader = io.BufferedReader(self._timed_reader, MAX_LINE_BYTES)
        self.peer = _remote_address(sock)
        self.unread = False
        """True while part of a request may still arrive."""
        self._expects_continue = self._is_writing = False
        self._own_bytes = 0
        """Size of the partial body, or of the response, that this process holds for the client."""
        self._position_unknown = False
        """True after an error within a body: the start of the next request cannot be found."""
        self._stream: Any = None

    def read_head(self, wait: float) -> RequestHead | None:
        """Wait up to `wait` seconds for a request, then read its head. None where the client closed or sent nothing.

        Raises MalformedRequest, and RequestTimeout for a head that takes longer than REQUEST_SECONDS.
        """
        self._timed_reader.deadline = time.monotonic() + wait
        try:
            if not self._reader.peek(1):
                return None
        except TimeoutError:
            return None
        spread = 1 - SPREAD * random.random()  # noqa: S311  (not for security)
        self._timed_reader.deadline = time.monotonic() + REQUEST_SECONDS * spread
        self.unread = True
        try:
            head = parse_head(self._reader)
        except TimeoutError:
            raise RequestTimeout from None
        self.unread = head.length != 0
        self._expects_continue = head.expects_continue
        return head

    def read_body(self, head: RequestHead) -> bytes:
        """Return the body, within the time that `read_head` left.

        Raises PayloadTooLarge (before reading, where the head states the length), RequestTimeout, MalformedRequest.
        """
        if not self.unread:
            return b""
        if head.length is not None and head.length > self._max_body:
            raise PayloadTooLarge.over(self._max_body)
        self._own_bytes = self._max_body if head.length is None else head.length
        try:
            self._position_unknown = True
            if self._expects_continue:
                self._expects_continue = False
                self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = self._read_body_bytes(head.length)
        except TimeoutError:
            raise RequestTimeout("The body took too long to arrive. Send it again.") from None
        finally:
            self._own_bytes = 0
        self.unread = self._position_unknown = False
        return body

    def _read_body_bytes(self, length: int | None) -> bytes:
        return read_chunked(self._reader, self._max_body) if length is None else read_exactly(self._reader, length)

    def read_pieces(self, head: RequestHead, max_bytes: int, deadline: float) -> Iterator[bytes]:
        """Yield the body in pieces of at most PIECE_BYTES, until `deadline`; each must arrive within REQUEST_SECONDS.

        Raises PayloadTooLarge, RequestTimeout, MalformedRequest; ConnectionError where the client disconnects.
        """
        if not self.unread:
            return
        if head.length is not None and head.length > max_bytes:
            raise PayloadTooLarge.over(max_bytes)
        self._position_unknown = True
        if self._expects_continue:
            self._expects_continue = False
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
        yield from body_stream.pieces(self._reader, self._timed_reader, head.length, max_bytes, deadline)
        self.unread = self._position_unknown = False

    def send_stream(
        self, status: int, headers: dict[str, str], pieces: Iterable[bytes] | None, *, keep_alive: bool, chunked: bool
    ) -> int:
        """Write a response whose pieces are made meanwhile; each must be written within WRITE_SECONDS.

        Without `chunked`, for clients of HTTP/1.0, the end of the connection is the end of the body. Returns the number
        of bytes. If `pieces` raises, the body stays incomplete. None for `pieces` sends no body.
        """
        framing = {"Transfer-Encoding": "chunked"} if chunked else {}
        self._write(self._head(status, headers | framing, keep_alive=keep_alive))
        sent = 0
        if pieces is None:
            return sent
        for piece in pieces:
            self._write(body_stream.chunk(piece) if chunked else piece)
            sent += len(piece)
        if chunked:
            self._write(body_stream.LAST_CHUNK)
        return sent

    def reusable(self, head: RequestHead) -> bool:
        """True where another request can follow, after `skip_body` if the body was not read."""
        if self._position_unknown or not self.unread:
            return not self._position_unknown
        return not self._expects_continue and (head.length is None or head.length <= self._max_body)

    def skip_body(self, head: RequestHead) -> bool:
        """Read a body that the handler did not need. False where the connection cannot be reused."""
        try:
            self.read_body(head)
        except (PayloadTooLarge, RequestTimeout, MalformedRequest):
            return False
        return True

    def held_bytes(self) -> int:
        """Return how much memory the slowness of the client costs, in this process and in the kernel."""
        if self._stream is None:
            return self._own_bytes + queued_bytes(self._sock)
        # The kernel is asked only about streams on which something was sent since it held nothing: to ask about a
        # thousand idle ones, five times a second, would delay requests by 10 ms each time.
        queued = queued_bytes(self._sock) if self._stream.may_be_queued else 0
        self._stream.may_be_queued = queued > 0
        return int(self._stream.buffered) + queued

    @property
    def is_streaming(self) -> bool:
        """True from hand_over() on: the stream closes the connection."""
        return self._stream is not None

    def hand_over(self, stream: Any, on_close: Callable[[], None]) -> None:
        """Leave the socket to `stream`, which closes the connection and then calls `on_close`."""
        self._stream = stream
        del self._reader, self._timed_reader  # their buffers

        def close() -> None:
            self.close(linger=False)
            on_close()

        stream.open(self._sock, close)

    def send(
        self, status: int, headers: dict[str, str], body: bytes, *, keep_alive: bool, is_shared: bool = False
    ) -> None:
        """Write one response; `headers` include the Content-Length. Raises TimeoutError for a client that is slow.

        A body that `is_shared` is kept in memory anyway. No body of more than a piece is copied.
        """
        head = self._head(status, headers, keep_alive=keep_alive)
        if len(body) <= PIECE_BYTES:
            self._write(head + body)
            return
        self._own_bytes = 0 if is_shared else len(body)
        try:
            self._write(head)
            self._write(body)
        finally:
            self._own_bytes = 0

    def _head(self, status: int, headers: dict[str, str], *, keep_alive: bool) -> bytes:
        lines = [f"HTTP/1.1 {_status_line(status)}", *(f"{name}: {value}" for name, value in headers.items())]
        lines += [f"Date: {_date(int(time.time()))}", f"Connection: {'keep-alive' if keep_alive else 'close'}", "", ""]
        return "\r\n".join(lines).encode("latin-1")

    def stop_reading(self) -> None:
        """Receive nothing more. Data that has arrived already can still be read."""
        with suppress(OSError):
            self._sock.shutdown(SHUT_RD)

    def evict(self) -> None:
        """End the wait for the client. A response that the client is slow to read is cut off."""
        if self._is_writing:
            discard_at_close(self._sock)
        with suppress(OSError):
            self._sock.shutdown(SHUT_RDWR if self._is_writing else SHUT_RD)

    def drop(self) -> None:
        """End the connection and free all memory that it holds."""
        discard_at_close(self._sock)
        self.abort()

    def abort(self) -> None:
        """Make every read and write fail at once."""
        with suppress(OSError):
            self._sock.shutdown(SHUT_RDWR)

    def close(self, *, linger: bool) -> None:
        """Close the socket.

        With `linger`, first read what the client still sends: closing with unread data resets the connection, and a
        reset can make the client lose the response.
        """
        with suppress(OSError):
            if linger:
                self._sock.shutdown(SHUT_WR)
                timed_socket.discard(self._sock, MAX_LINGER_BYTES, time.monotonic() + LINGER_SECONDS)
        with suppress(OSError):
            self._sock.close()

    def _write(self, data: bytes) -> None:
        self._is_writing = True
        for start in range(0, len(data), PIECE_BYTES):
            piece = memoryview(data)[start : start + PIECE_BYTES]
            try:
                timed_socket.write(self._sock, piece, time.monotonic() + WRITE_SECONDS)
            except TimeoutError:
                discard_at_close(self._sock)
                raise
        self._is_writing = False


def _remote_address(sock: socket) -> str:
    """Return the address of the client, empty where it has disconnected already."""
    try:
        return str(sock.getpeername()[0])
    except OSError:
        return ""


@lru_cache(maxsize=64)
def _status_line(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"


@lru_cache(maxsize=2)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
