"""Reading from and writing to a non-blocking socket until a deadline, while other greenlets run."""

import io
import time
from contextlib import suppress
from socket import socket
from typing import Any

from eventlet.hubs import trampoline


def wait_until_ready(sock: socket, deadline: float, **mode: bool) -> None:
    """Switch to other greenlets until `sock` is readable (`read=True`) or writable (`write=True`).

    `deadline` is a time of time.monotonic(). Raises TimeoutError. Do not call it inside an `except` block: the
    exception being handled would stay referenced during the wait.
    """
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    try:
        trampoline(sock, timeout=seconds, timeout_exc=TimeoutError, **mode)
    except TimeoutError as error:
        # The traceback refers to frames of eventlet, and they refer to the error. The connection would be part of this
        # reference cycle, and only the garbage collector would free it.
        raise error.with_traceback(None)  # noqa: B904


class TimedReader(io.RawIOBase):
    """Reads from a socket until `deadline`. The deadline bounds all reads together, however small each one is."""

    def __init__(self, sock: socket) -> None:
        self._sock = sock
        self.deadline = 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while time.monotonic() < self.deadline:
            with suppress(BlockingIOError):
                return self._sock.recv_into(buffer)
            wait_until_ready(self._sock, self.deadline, read=True)
        raise TimeoutError


def write(sock: socket, data: memoryview, deadline: float) -> None:
    """Write all of `data`. Raises TimeoutError."""
    while data:
        with suppress(BlockingIOError):
            data = data[sock.send(data) :]
            continue
        wait_until_ready(sock, deadline, write=True)


def discard(sock: socket, max_bytes: int, deadline: float) -> None:
    """Read and drop what the peer still sends, until it closes, `max_bytes` arrived, or the deadline passes."""
    while max_bytes > 0 and time.monotonic() < deadline:
        with suppress(BlockingIOError):
            received = len(sock.recv(65536))
            if not received:
                return
            max_bytes -= received
            continue
        wait_until_ready(sock, deadline, read=True)
