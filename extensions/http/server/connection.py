"""HTTP/1.1 on one connection: reading requests that may be slow, huge or hostile, and writing answers.

We read the wire ourselves because eventlet's WSGI server bounds neither the time nor the size of a request, and
answers its own errors as text.
"""

import io
import random
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from socket import SHUT_RD, SHUT_RDWR, SHUT_WR, socket
from typing import Any

from eventlet.hubs import trampoline

from extensions.http.message.errors import MalformedRequest, PayloadTooLarge, RequestTimeout

IDLE_SECONDS = 75.0
# From its first byte on, a request has this long to arrive, its body included; with the lingering, ten seconds.
REQUEST_SECONDS = 8.0
# By so large a part it may be less, by chance: slow clients that came together are not all dropped in the same moment.
SPREAD = 0.15
# So long may a piece of an answer take to leave, however little of it the client reads at a time.
WRITE_SECONDS = 8.0
PIECE_BYTES = 64 * 1024
LINGER_SECONDS = 2.0
MAX_LINE_BYTES = 8 * 1024
MAX_HEAD_BYTES = 32 * 1024
MAX_HEADERS = 100
MAX_LINGER_BYTES = 32 * 1024 * 1024

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET = re.compile(rb"[!-~]+")
_VERSION = re.compile(rb"HTTP/1\.[0-9]")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})(;[\t -~\x80-\xff]*)?\r\n")
_ABSOLUTE = re.compile(r"https?://[^/?#]+", re.IGNORECASE)
_SINGLE = frozenset({"host", "content-length", "content-type", "authorization", "idempotency-key"})


@dataclass(frozen=True, slots=True)
class Head:
    """The first part of a request. Header names are in lower case; `length` is None for a chunked body."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    keep_alive: bool
    length: int | None


def _wait(sock: socket, deadline: float, **what: bool) -> None:
    """Let others work until `sock` can be read (`read=True`) or written (`write=True`). Raises TimeoutError.

    Not to be called where an exception is handled, for that would be kept until then.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    try:
        trampoline(sock, timeout=left, timeout_exc=TimeoutError, **what)
    except TimeoutError as error:
        # Its traceback has eventlet's frames, and these have it. In that circle are the connection and all that belongs
        # to it, and only the garbage collector would find them.
        raise error.with_traceback(None)  # noqa: B904


class _TimedReader(io.RawIOBase):
    """A socket that has to deliver everything until `deadline`, however many small pieces it sends."""

    def __init__(self, sock: socket) -> None:
        self._sock = sock
        self.deadline = 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while time.monotonic() < self.deadline:
            with suppress(BlockingIOError):
                return self._sock.recv_into(buffer)
            _wait(self._sock, self.deadline, read=True)
        raise TimeoutError


class Connection:
    """One client's connection: `read_head`, perhaps `read_body`, then `send`, again and again."""

    def __init__(self, sock: socket, max_body: int) -> None:
        """`sock` does not block, `max_body` is in bytes.

        The socket is Python's own: eventlet's green one has eleven objects more, and the garbage collector would look
        at those of thousands of slow clients while everybody else waits.
        """
        self._sock, self._max_body = sock, max_body
        self._timed = _TimedReader(sock)
        self._buffer = io.BufferedReader(self._timed, MAX_LINE_BYTES)
        self.peer = _address(sock)
        self.unread = False  # the client sends something that has not been read to its end
        self._expects_continue = self._is_writing = False
        self._is_lost = False  # somewhere in the middle of a body: where the next request begins is unknown

    def read_head(self, wait: float) -> Head | None:
        """Wait `wait` seconds for a request, then read its head; None when the client has gone or stays silent.

        Raises MalformedRequest, and RequestTimeout for a head that takes longer than REQUEST_SECONDS.
        """
        self._timed.deadline = time.monotonic() + wait
        try:
            if not self._buffer.peek(1):
                return None
        except TimeoutError:
            return None
        spread = 1 - SPREAD * random.random()  # noqa: S311  (no secret)
        self._timed.deadline = time.monotonic() + REQUEST_SECONDS * spread
        self.unread = True
        try:
            return self._parse_head()
        except TimeoutError:
            raise RequestTimeout from None

    def read_body(self, head: Head) -> bytes:
        """Return the body. Raises PayloadTooLarge as early as it is known, RequestTimeout, MalformedRequest."""
        if not self.unread:
            return b""
        if head.length is not None and head.length > self._max_body:
            raise PayloadTooLarge.over(self._max_body)
        try:
            self._is_lost = True
            if self._expects_continue:
                self._expects_continue = False
                self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = self._read_chunks() if head.length is None else self._read_exactly(head.length)
        except TimeoutError:
            raise RequestTimeout("The body took too long to arrive. Send it again.") from None
        self.unread = self._is_lost = False
        return body

    def reusable(self, head: Head) -> bool:
        """True where another request can follow, perhaps after `skip_body`."""
        if self._is_lost or not self.unread:
            return not self._is_lost
        return not self._expects_continue and (head.length is None or head.length <= self._max_body)

    def skip_body(self, head: Head) -> bool:
        """Read over a body that nobody wanted; False when the connection is of no further use."""
        try:
            self.read_body(head)
        except (PayloadTooLarge, RequestTimeout, MalformedRequest):
            return False
        return True

    def send(self, status: int, headers: dict[str, str], body: bytes, *, keep_alive: bool) -> None:
        """Write one answer; `headers` say the length."""
        lines = [f"HTTP/1.1 {_status_line(status)}", *(f"{name}: {value}" for name, value in headers.items())]
        lines += [f"Date: {_date(int(time.time()))}", f"Connection: {'keep-alive' if keep_alive else 'close'}", "", ""]
        self._write("\r\n".join(lines).encode("latin-1") + body)

    def shut_reading(self) -> None:
        """Take no more requests: what has arrived can still be read, after it comes the end."""
        with suppress(OSError):
            self._sock.shutdown(SHUT_RD)

    def give_up(self) -> None:
        """Wait no longer for the client; an answer that it does not read is lost."""
        with suppress(OSError):
            self._sock.shutdown(SHUT_RDWR if self._is_writing else SHUT_RD)

    def abandon(self) -> None:
        """Have whatever reads or writes end at once."""
        with suppress(OSError):
            self._sock.shutdown(SHUT_RDWR)

    def close(self, *, linger: bool) -> None:
        """Close. A client that still sends would lose our answer to a reset: `linger` hears it out, for a while."""
        with suppress(OSError):
            if linger:
                self._sock.shutdown(SHUT_WR)
                self._discard()
        with suppress(OSError):
            self._sock.close()

    # Reading

    def _parse_head(self) -> Head:
        line = self._line() or self._line()  # one empty line before a request is allowed
        parts = line.split(b" ")
        if len(parts) != 3 or not _TOKEN.fullmatch(parts[0]) or not _TARGET.fullmatch(parts[1]):
            raise MalformedRequest("The request line is not: METHOD /path HTTP/1.1")
        if not _VERSION.fullmatch(parts[2]):
            raise MalformedRequest("This server speaks HTTP/1.1.")
        headers = self._headers()
        newer = parts[2] != b"HTTP/1.0"
        if newer and "host" not in headers:
            raise MalformedRequest("The Host header is missing.")
        length = _body_length(headers, newer)
        self.unread = length != 0
        self._expects_continue = newer and headers.get("expect", "").lower() == "100-continue"
        path, query = _split_target(parts[1].decode("ascii"), parts[0])
        return Head(parts[0].decode("ascii"), path, query, headers, _keep_alive(headers, newer), length)

    def _line(self) -> bytes:
        line = self._buffer.readline(MAX_LINE_BYTES)
        if not line.endswith(b"\r\n"):
            if line.endswith(b"\n"):  # others might not end the line there
                raise MalformedRequest("Lines end with CR and LF.")
            if len(line) >= MAX_LINE_BYTES:
                raise MalformedRequest(f"A line of the request's head is longer than {MAX_LINE_BYTES} bytes.")
            raise ConnectionError("the client closed the connection within a request")
        return line[:-2]

    def _headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        size = count = 0
        while line := self._line():
            size, count = size + len(line), count + 1
            if count > MAX_HEADERS:
                raise MalformedRequest(f"The request has more than {MAX_HEADERS} headers.")
            if size > MAX_HEAD_BYTES:
                raise MalformedRequest(f"The request's headers are longer than {MAX_HEAD_BYTES} bytes.")
            name, colon, value = line.partition(b":")
            if not colon or not _TOKEN.fullmatch(name) or _CONTROL.search(value):
                raise MalformedRequest("A header line is not: Name: value")
            key, text = name.decode("ascii").lower(), value.strip(b" \t").decode("latin-1")
            if key in headers and key in _SINGLE:
                raise MalformedRequest(f"The {key} header stands twice.")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        return headers

    def _read_exactly(self, length: int) -> bytes:
        body = self._buffer.read(length)
        if len(body) < length:
            raise ConnectionError("the client closed the connection within a body")
        return body

    def _read_chunks(self) -> bytes:
        body = bytearray()
        while size := self._chunk_size():
            if len(body) + size > self._max_body:
                raise PayloadTooLarge.over(self._max_body)
            body += self._read_exactly(size)
            if self._buffer.read(2) != b"\r\n":
                raise MalformedRequest("A chunk of the body is longer than it says.")
        self._headers()  # trailers, which nobody reads
        return bytes(body)

    def _chunk_size(self) -> int:
        match = _CHUNK_SIZE.fullmatch(self._buffer.readline(256))
        if not match:
            raise MalformedRequest("A chunk of the body does not begin with its size.")
        return int(match[1], 16)

    def _discard(self) -> None:
        deadline, left = time.monotonic() + LINGER_SECONDS, MAX_LINGER_BYTES
        while left > 0 and time.monotonic() < deadline:
            with suppress(BlockingIOError):
                received = len(self._sock.recv(65536))
                if not received:
                    return
                left -= received
                continue
            _wait(self._sock, deadline, read=True)

    # Writing

    def _write(self, data: bytes) -> None:
        self._is_writing = True
        for begin in range(0, len(data), PIECE_BYTES):
            self._write_piece(memoryview(data)[begin : begin + PIECE_BYTES])
        self._is_writing = False

    def _write_piece(self, piece: memoryview) -> None:
        deadline = time.monotonic() + WRITE_SECONDS
        while piece:
            with suppress(BlockingIOError):
                piece = piece[self._sock.send(piece) :]
                continue
            _wait(self._sock, deadline, write=True)


def _address(sock: socket) -> str:
    """Return where a connection comes from; nothing where it has gone already."""
    try:
        return str(sock.getpeername()[0])
    except OSError:
        return ""


def _body_length(headers: dict[str, str], newer: bool) -> int | None:
    """Return the body's length, None when it comes in chunks. What two readers could read in two ways is refused."""
    coding = headers.get("transfer-encoding")
    stated = headers.get("content-length")
    if coding is not None:
        if stated is not None or not newer or coding.lower() != "chunked":
            raise MalformedRequest("State either Content-Length or Transfer-Encoding: chunked.")
        return None
    if stated is None:
        return 0
    if not (stated.isascii() and stated.isdigit() and len(stated) <= 18):
        raise MalformedRequest("Content-Length is not a number.")
    return int(stated)


def _split_target(target: str, method: bytes) -> tuple[str, str]:
    """Return path and query of the target's three forms: /path, http://host/path, and * of OPTIONS."""
    if not target.startswith("/"):
        origin = _ABSOLUTE.match(target)
        if not origin and (target, method) != ("*", b"OPTIONS"):
            raise MalformedRequest("The request's target is neither /path nor http://host/path.")
        target = (target[origin.end() :] or "/") if origin else target
    path, _, query = target.partition("?")
    return path, query


def _keep_alive(headers: dict[str, str], newer: bool) -> bool:
    options = headers.get("connection", "").lower()
    return "close" not in options if newer else "keep-alive" in options


@lru_cache(maxsize=64)
def _status_line(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"


@lru_cache(maxsize=2)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
