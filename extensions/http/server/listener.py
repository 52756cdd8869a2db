"""The listening socket and its connections: how many there may be, what each may do, and how they end."""

import ctypes
import gc
import logging
import resource
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum, auto
from functools import partial
from typing import Any

import eventlet
from eventlet.hubs import trampoline
from nameko.web.server import parse_address

from contracts.errors import ServiceError
from extensions.http.message.errors import MalformedRequest, RequestTimeout
from extensions.http.message.request import HttpRequest
from extensions.http.server.connection import IDLE_SECONDS, REQUEST_SECONDS, Connection, Head
from extensions.observability.traces import start_trace

log = logging.getLogger(__name__)
access_log = logging.getLogger("gateway.access")

BACKLOG = 1024
MAX_CONNECTIONS = 4000
SPARE_FILES = 100  # for the broker, the logs, the code
# What the kernel holds for a client that does not read: enough for most answers, little for thousands of clients.
SEND_BUFFER_BYTES = 128 * 1024
# Who connected just before the stop, or has a request on the way to us, still gets an answer.
LAST_REQUEST_SECONDS = 0.3
ACCEPT_PAUSE_SECONDS = 0.1
HANDSHAKE_SECONDS = 0.05
# Python counts what is new less what is gone: while as many connections end as begin, it does not look for garbage, and
# then looks at thousands of connections in one go, for which everybody waits. 32 of them are looked at in 1 ms.
CONNECTIONS_LOOKED_AT = 32
SO_ATTACH_FILTER = 26  # Linux's; Python has no name for it
# A program for the kernel: of the TCP segments to this socket, drop those that ask for a new connection.
DROP_SYN = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFF_FFFF))
UNREADABLE = Head(method="-", path="-", query="", headers={}, keep_alive=False, length=0)


class _Turn(Enum):
    """Whom a connection waits for."""

    IDLE = auto()
    """The client, which has not sent a whole head yet."""
    THEIRS = auto()
    """The client, which sends a body or reads an answer."""
    OURS = auto()


class HttpListener:
    """One listening socket and the connections that came in by it."""

    def __init__(self, address: str, max_body: int, spawn: Callable[..., Any], answer: Callable[..., Any]) -> None:
        """`address` is `[host:]port`, `max_body` in bytes; `spawn(fn, identifier=...)` starts what accepts.

        `answer(request, read_body, error)` returns an Answer and raises nothing; `error` is what is wrong with a
        request that could not even be read.
        """
        host, port = parse_address(address)
        # SO_REUSEPORT, so that several gateways can share the port, and one be replaced while others answer.
        self._green = eventlet.listen((host, port), backlog=BACKLOG, reuse_port=port != 0)  # closes when forgotten
        self._sock = self._green.fd  # the connections that it accepts are Python's own sockets, not green ones
        self._max_body, self._answer = max_body, answer
        self._max_connections = _room_for_connections()
        self._open: dict[Connection, _Turn] = {}  # the longest wait comes first
        self._accepted = 0
        self._stopping = False
        self._acceptor = spawn(self._accept_all, identifier="http.accept")

    @property
    def port(self) -> int:
        """The port, where the address left it open."""
        return self._sock.getsockname()[1]

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._open)

    def stop(self, limit: float) -> None:
        """Accept nothing new, answer what is under way, and return when all is answered or after `limit` seconds."""
        if self._stopping:
            return
        self._stopping = True
        deadline = time.monotonic() + limit
        self._close_door()
        last_request = time.monotonic() + LAST_REQUEST_SECONDS
        while self._open and time.monotonic() < deadline:
            if time.monotonic() > last_request:
                for connection in [connection for connection, turn in self._open.items() if turn is _Turn.IDLE]:
                    connection.shut_reading()
            eventlet.sleep(0.02)
        if self._open:
            log.warning("%d connections were still busy at the stop", len(self._open))
            self._abandon_all()

    def kill(self) -> None:
        """Close at once."""
        self._stopping = True
        self._acceptor.kill()
        self._sock.close()
        self._abandon_all()

    def _abandon_all(self) -> None:
        for connection in self._open:
            connection.abandon()

    # Accepting

    def _accept_all(self) -> None:
        while True:
            try:
                sock, _ = self._sock.accept()
            except BlockingIOError:
                trampoline(self._sock, read=True)
            except OSError as error:  # out of file descriptors, or the client has gone already
                log.warning("a connection could not be accepted: %s", error)
                self._give_up_slowest()
                eventlet.sleep(ACCEPT_PAUSE_SECONDS)
            else:
                self._begin(sock)
                eventlet.sleep(0)  # however many more wait: who is connected gets its turn

    def _close_door(self) -> None:
        """Accept nothing new, and reset nobody: whoever comes too late tries again in a second, and finds another.

        Between the last accept and the close a client could still get in, send its request, and see it reset.
        """
        with suppress(OSError):  # some other kernel: then we are as good as anybody
            _drop_new_connections(self._sock)
        eventlet.sleep(HANDSHAKE_SECONDS)
        self._acceptor.kill()
        self._accept_backlog()
        self._sock.close()

    def _accept_backlog(self) -> None:
        """Take what the kernel has accepted for us: closing the socket would reset those clients."""
        while True:
            try:
                sock, _ = self._sock.accept()
            except OSError:  # nobody waits any more
                return
            self._begin(sock)

    def _begin(self, sock: socket.socket) -> None:
        if len(self._open) >= self._max_connections:
            if not self._give_up_slowest():
                sock.close()
                return
            eventlet.sleep(0)  # let it be closed, however many more wait to be accepted
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        connection = Connection(sock, self._max_body)
        self._open[connection] = _Turn.IDLE
        eventlet.spawn_n(self._serve, connection)  # of all kinds of greenlets the one with the fewest objects
        self._accepted += 1
        if self._accepted % CONNECTIONS_LOOKED_AT == 0:
            gc.collect(0)

    def _give_up_slowest(self) -> bool:
        """Make room at the cost of the client that has kept us waiting for longest. False where none does."""
        for connection, turn in self._open.items():
            if turn is not _Turn.OURS:
                self._open.pop(connection)
                connection.give_up()
                return True
        return False

    # Serving

    def _serve(self, connection: Connection) -> None:
        linger = False
        try:
            wait = REQUEST_SECONDS
            while self._serve_one(connection, wait):
                wait = IDLE_SECONDS
            linger = connection.unread
        except OSError:  # the client went away; nobody is left to tell
            pass
        except Exception:
            log.exception("a connection ended with a defect")
        finally:
            # It counts until it is closed: who lingers has a socket, too, and makes room like everybody else.
            self._mark(connection, _Turn.THEIRS)
            connection.close(linger=linger)
            self._open.pop(connection, None)

    def _serve_one(self, connection: Connection, wait: float) -> bool:
        """Answer one request. False when the connection is done."""
        self._mark(connection, _Turn.IDLE)
        try:
            head = connection.read_head(wait)
        except (MalformedRequest, RequestTimeout) as error:
            return self._respond(connection, UNREADABLE, error)
        if head is None:
            return False
        self._mark(connection, _Turn.OURS)
        if not self._respond(connection, head, None):
            return False
        if not connection.unread:
            return True
        with self._their_turn(connection):
            return connection.skip_body(head)

    def _mark(self, connection: Connection, turn: _Turn) -> None:
        if self._open.pop(connection, None) is not None:
            self._open[connection] = turn

    @contextmanager
    def _their_turn(self, connection: Connection) -> Iterator[None]:
        self._mark(connection, _Turn.THEIRS)
        try:
            yield
        finally:
            self._mark(connection, _Turn.OURS)

    def _read_body(self, connection: Connection, head: Head) -> bytes:
        with self._their_turn(connection):
            return connection.read_body(head)

    def _respond(self, connection: Connection, head: Head, error: ServiceError | None) -> bool:
        """Send the answer and log it. False when the connection cannot take another request."""
        started = time.monotonic()
        trace = start_trace(head.headers, "gateway")
        request = HttpRequest(head.method, head.path, head.query, head.headers, trace)
        request.peer = connection.peer
        answer = self._answer(request, partial(self._read_body, connection, head), error)
        body = b"" if head.method == "HEAD" else answer.content
        keep_alive = head.keep_alive and not self._stopping and connection.reusable(head)
        try:
            with self._their_turn(connection):
                connection.send(answer.status, answer.headers, body, keep_alive=keep_alive)
        finally:
            spent = (time.monotonic() - started) * 1000
            access_log.info("%s %s %d %.1f ms %d bytes", head.method, head.path, answer.status, spent, len(body))
        return keep_alive


def _drop_new_connections(sock: Any) -> None:
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in DROP_SYN))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", len(DROP_SYN), ctypes.addressof(program)))


def _room_for_connections() -> int:
    """Return how many connections there may be, after allowing this process the files for as many as we want."""
    wanted = MAX_CONNECTIONS + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, max(1, soft - SPARE_FILES))
