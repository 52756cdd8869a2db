"""The operating system: the limit of open files, a filter that refuses new connections, the data in socket buffers."""

import ctypes
import fcntl
import resource
import socket
import struct
import termios
from contextlib import suppress
from typing import Any

SPARE_FILES = 100  # for connections to the broker, log files and modules
SO_ATTACH_FILTER = 26  # of Linux; Python's socket module has no name for it
# A classic BPF program for a listening socket: drop TCP segments that have SYN set, accept all others.
DROP_SYN = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFF_FFFF))


def drop_new_connections(sock: Any) -> None:
    """Make the kernel ignore new connections to a listening socket. Raises OSError where it cannot."""
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in DROP_SYN))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", len(DROP_SYN), ctypes.addressof(program)))


def allow_connections(wanted: int) -> int:
    """Raise the limit of open files as far as `wanted` connections need. Returns how many connections fit."""
    files = wanted + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < files:
        soft = files if hard == resource.RLIM_INFINITY else min(files, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else min(wanted, max(1, soft - SPARE_FILES))


def queued_bytes(sock: socket.socket) -> int:
    """Return how much data the kernel holds for a connection: not acknowledged by the peer, or not read by us."""
    found = 0
    for question in (termios.TIOCOUTQ, termios.FIONREAD):
        with suppress(OSError, ValueError):  # it is closed
            found += struct.unpack("i", fcntl.ioctl(sock.fileno(), question, b"\0\0\0\0"))[0]
    return found


def discard_at_close(sock: socket.socket) -> None:
    """Make the close of a connection drop what the peer has not read, and reset it.

    Otherwise the kernel would keep the data, and send it for minutes to a peer that does not read.
    """
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
