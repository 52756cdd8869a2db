"""Bodies that are read or written in pieces: no more than a piece is in memory at a time."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, BinaryIO

from extensions.http.message.errors import MalformedRequest, PayloadTooLarge, RequestTimeout
from extensions.http.server.parser import RequestHead, read_chunk_size, read_exactly, read_trailers

PIECE_BYTES = 64 * 1024
PIECE_SECONDS = 8.0
LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Return `data` as a chunk of the chunked transfer coding; nothing for no data, which would end the body."""
    return b"%x\r\n%s\r\n" % (len(data), data) if data else b""


def pieces(reader: BinaryIO, timed_reader: Any, length: int | None, max_bytes: int, deadline: float) -> Iterator[bytes]:
    """Yield a body of `length` bytes, None for a chunked one, until `deadline`; each piece within PIECE_SECONDS.

    Raises PayloadTooLarge for more than `max_bytes`, RequestTimeout, MalformedRequest, ConnectionError.
    """
    try:
        lengths = iter([length]) if length is not None else _chunk_lengths(reader, timed_reader, deadline)
        total = 0
        for size in lengths:
            total += size
            if total > max_bytes:
                raise PayloadTooLarge.over(max_bytes)
            for start in range(0, size, PIECE_BYTES):
                _extend(timed_reader, deadline)
                yield read_exactly(reader, min(PIECE_BYTES, size - start))
            if length is None and reader.read(2) != b"\r\n":
                raise MalformedRequest("A chunk of the body is longer than its stated size.")
        if length is None:
            read_trailers(reader)
    except TimeoutError:
        raise RequestTimeout("The body took too long to arrive. Send it again.") from None


def _chunk_lengths(reader: BinaryIO, timed_reader: Any, deadline: float) -> Iterator[int]:
    _extend(timed_reader, deadline)
    while size := read_chunk_size(reader):
        yield size
        _extend(timed_reader, deadline)


def _extend(timed_reader: Any, deadline: float) -> None:
    timed_reader.deadline = min(deadline, time.monotonic() + PIECE_SECONDS)


class Body:
    """The body of one request: called, it returns the whole body; `pieces` yields it."""

    def __init__(
        self, connection: Any, head: RequestHead, waiting: Callable[[Any], AbstractContextManager[None]]
    ) -> None:
        """`waiting(connection)` records that the block waits for the client."""
        self._connection, self._head, self._waiting = connection, head, waiting

    def __call__(self) -> bytes:
        """Return the body. Raises PayloadTooLarge, RequestTimeout, MalformedRequest."""
        with self._waiting(self._connection):
            body: bytes = self._connection.read_body(self._head)
            return body

    def pieces(self, max_bytes: int, deadline: float) -> Iterator[bytes]:
        """Yield the body in pieces. Raises the same, also where the client disconnects."""
        arriving = self._connection.read_pieces(self._head, max_bytes, deadline)
        while True:
            try:
                with self._waiting(self._connection):
                    piece = next(arriving, None)
            except OSError:
                raise MalformedRequest("The connection ended within the body.") from None
            if piece is None:
                return
            yield piece
