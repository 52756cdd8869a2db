"""Buffered reads and serialised writes on a socket to RabbitMQ, in place of py-amqp's own transport."""

import socket
from contextlib import suppress
from typing import Any

from amqp.exceptions import UnexpectedFrame
from amqp.transport import TCPTransport
from eventlet.greenio import GreenSocket
from eventlet.hubs import trampoline
from eventlet.semaphore import Semaphore

from extensions.messaging.wire.frames import END, FRAME, FRAME_OVERHEAD

READ_BYTES = 64 * 1024


class BufferedTransport(TCPTransport):
    """Reads all available bytes at once, where py-amqp makes three calls per frame. One greenlet writes at a time."""

    def __init__(self, host: str, **options: Any) -> None:
        super().__init__(host, **options)
        self._data, self._at = b"", 0
        self._is_drained = False
        self._write_lock = Semaphore(1)

    def _setup_transport(self) -> None:
        self._write = self._write_whole

    def read_frame(self, *_unpack: Any) -> tuple[int, int, bytes]:
        """Return the type, the channel and the payload of the next frame. A timeout keeps a partial frame."""
        while True:
            data, at = self._data, self._at
            if len(data) - at >= FRAME_OVERHEAD:
                kind, channel, size = FRAME.unpack_from(data, at)
                begin = at + FRAME.size
                end = begin + size
                if len(data) > end:
                    if data[end] != END[0]:
                        raise UnexpectedFrame(f"a frame ends with {data[end]:#04x}")
                    self._at = end + 1
                    return kind, channel, data[begin:end]
            self._fill()

    def _fill(self) -> None:
        sock = self._open_socket()
        try:
            if self._is_drained and isinstance(sock, GreenSocket) and sock.gettimeout() is None:
                trampoline(sock, read=True)  # the last read drained the socket: another read would only return EAGAIN
            more = sock.recv(READ_BYTES)
        except TimeoutError:
            raise
        except OSError:
            self.connected = False
            raise
        if not more:
            self.connected = False
            raise OSError("Server unexpectedly closed connection")
        self._is_drained = len(more) < READ_BYTES
        self._data = self._data[self._at :] + more
        self._at = 0

    def _write_whole(self, data: bytes) -> None:
        with self._write_lock:
            sock = self._open_socket()
            try:
                sock.sendall(data)
            except BaseException:
                # A part may be sent already. The broker would read the next write as the rest of it, so there is none.
                self.connected = False
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                raise

    def _open_socket(self) -> Any:
        if self.sock is None:
            raise OSError("the connection was closed")
        return self.sock
