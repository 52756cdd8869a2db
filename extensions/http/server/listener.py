"""The listening socket: accepts connections, serves the requests on each, and stops without losing a request."""

import logging
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import eventlet
from eventlet.hubs import trampoline
from nameko.web.server import parse_address

from contracts.errors import ServiceError
from extensions.http.message.errors import MalformedRequest, RequestTimeout
from extensions.http.message.request import HttpRequest
from extensions.http.server.body_stream import Body
from extensions.http.server.connection import IDLE_SECONDS, REQUEST_SECONDS, Connection
from extensions.http.server.connection_table import ConnectionTable, Phase
from extensions.http.server.kernel import allow_connections, drop_new_connections
from extensions.http.server.parser import RequestHead
from extensions.observability.traces import RedisWait, start_trace
from extensions.runtime.progress import LOCAL_SECONDS, Loop, Loops

log = logging.getLogger(__name__)
access_log = logging.getLogger("gateway.access")

BACKLOG = 1024
MAX_CONNECTIONS = 4000
# Kernel memory for a client that is slow to read, or whose requests wait; the kernel doubles it. Most messages fit.
SOCKET_BUFFER_BYTES = 64 * 1024
# What a connection holds at most, except for a list of very large resources.
CONNECTION_BYTES = 512 * 1024
# All connections together: more would not fit into the memory that compose gives to a gateway.
MAX_BUFFERED_BYTES = 32 * 1024 * 1024
MEMORY_CHECK_SECONDS = 0.2
# At the stop: a request that arrives within this time on an open connection is still served.
LAST_REQUEST_SECONDS = 0.3
ACCEPT_PAUSE_SECONDS = 0.1
HANDSHAKE_SECONDS = 0.05
# Stands for a request that could not be parsed.
UNPARSED = RequestHead(method="-", path="-", query="", headers={}, keep_alive=False, length=0)


class HttpListener:
    """One listening socket and the connections that it accepted."""

    def __init__(
        self,
        address: str,
        max_body: int,
        spawn: Callable[..., Any],
        respond: Callable[..., Any],
        max_buffered: int = MAX_BUFFERED_BYTES,
        loops: Loops | None = None,
    ) -> None:
        """`address` is `[host:]port`, `max_body` in bytes; `spawn(fn, identifier=...)` starts the listener's greenlets.

        The slowest clients are dropped where all connections together hold more than `max_buffered` bytes.

        `respond(request, read_body, error)` returns a Response and raises nothing but OSError; `error` is set where
        the request could not be parsed.
        """
        host, port = parse_address(address)
        # SO_REUSEPORT, so that several gateways share the port, and one can be replaced while the others respond.
        self._green = eventlet.listen((host, port), backlog=BACKLOG, reuse_port=port != 0)  # closed when collected
        self._sock = self._green.fd  # plain, so that the accepted sockets are plain and not green ones
        # For accepted connections, too. Without it the kernel would buffer megabytes of requests that wait.
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
        self._max_body, self._respond, self._max_buffered = max_body, respond, max_buffered
        self.open = ConnectionTable(allow_connections(MAX_CONNECTIONS))
        self._loops = loops or Loops()
        self._stopping = False
        self._acceptor = spawn(self._accept_all, identifier="http.accept")
        self._memory_guard = spawn(self._bound_memory, identifier="http.memory")

    @property
    def port(self) -> int:
        """The port of the socket, chosen by the kernel where the address says 0."""
        return self._sock.getsockname()[1]

    @property
    def connections(self) -> int:
        """Number of open connections."""
        return len(self.open)

    def stop(self, timeout: float) -> None:
        """Accept nothing new and finish the requests in flight. Returns after `timeout` seconds at the latest."""
        if self._stopping:
            return
        self._stopping = True
        deadline = time.monotonic() + timeout
        self._stop_accepting()
        last_request = time.monotonic() + LAST_REQUEST_SECONDS
        while self.open and time.monotonic() < deadline:
            if time.monotonic() > last_request:
                for connection in self.open.idle():
                    connection.stop_reading()
            eventlet.sleep(0.02)
        if self.open:
            log.warning("%d connections were still busy at the stop", len(self.open))
            self._abort_all()
        self._memory_guard.kill()

    def kill(self) -> None:
        """Close everything at once."""
        self._stopping = True
        self._acceptor.kill()
        self._memory_guard.kill()
        self._sock.close()
        self._abort_all()

    def _abort_all(self) -> None:
        for connection in self.open:
            connection.abort()

    def _bound_memory(self) -> None:
        with self._loops.running("http.memory", LOCAL_SECONDS) as loop:
            while True:
                loop.report_progress()
                eventlet.sleep(MEMORY_CHECK_SECONDS)
                if len(self.open) * CONNECTION_BYTES > self._max_buffered:
                    dropped = self.open.evict_until_held(self._max_buffered)
                    if dropped:
                        text = "%d slow clients were dropped: they held more than %d bytes"
                        log.warning(text, dropped, self._max_buffered)

    # Accepting

    def _accept_all(self) -> None:
        with self._loops.running("http.accept", LOCAL_SECONDS) as loop:
            self._accept_until_killed(loop)

    def _accept_until_killed(self, loop: Loop) -> None:
        while True:
            loop.report_progress()
            try:
                sock, _ = self._sock.accept()
            except BlockingIOError:
                loop.report_idle()
                trampoline(self._sock, read=True)
            except OSError as error:  # out of file descriptors, or the client disconnected already
                log.warning("a connection could not be accepted: %s", error)
                self.open.evict_slowest()
                eventlet.sleep(ACCEPT_PAUSE_SECONDS)
            else:
                self._serve_in_background(sock)
                eventlet.sleep(0)  # let existing connections run, however many new ones wait in the backlog

    def _stop_accepting(self) -> None:
        """Close the listening socket without resetting a client.

        A client that connected between the last accept and the close would be reset. So the kernel first drops new
        connection requests: those clients retry after a second, and reach another gateway or a closed port.
        """
        with suppress(OSError):  # not Linux: a client may be reset
            drop_new_connections(self._sock)
        eventlet.sleep(HANDSHAKE_SECONDS)
        self._acceptor.kill()
        self._accept_backlog()
        self._sock.close()

    def _accept_backlog(self) -> None:
        """Serve the connections that the kernel has established already."""
        while True:
            try:
                sock, _ = self._sock.accept()
            except OSError:  # the backlog is empty
                return
            self._serve_in_background(sock)

    def _serve_in_background(self, sock: socket.socket) -> None:
        if self.open.is_full:
            if not self.open.evict_slowest():
                sock.close()
                return
            eventlet.sleep(0)  # let the evicted connection close before the next accept
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
        connection = Connection(sock, self._max_body)
        self.open.add(connection)
        eventlet.spawn_n(self._serve, connection)  # the kind of greenlet that consists of the fewest objects

    # Serving

    def _serve(self, connection: Connection) -> None:
        linger = False
        try:
            wait = REQUEST_SECONDS
            while self._serve_one(connection, wait):
                wait = IDLE_SECONDS
            linger = connection.unread
        except OSError:  # the client disconnected
            pass
        except Exception:
            log.exception("a connection ended with a defect")
        finally:
            if not connection.is_streaming:
                # The connection counts until its socket is closed. It can be evicted while it lingers.
                self.open.enter(connection, Phase.CLIENT)
                connection.close(linger=linger)
                self.open.remove(connection)

    def _serve_one(self, connection: Connection, wait: float) -> bool:
        """Serve one request. False where the connection is finished."""
        self.open.enter(connection, Phase.IDLE)
        try:
            head = connection.read_head(wait)
        except (MalformedRequest, RequestTimeout) as error:
            return self._serve_request(connection, UNPARSED, error)
        if head is None:
            return False
        self.open.enter(connection, Phase.SERVER)
        if not self._serve_request(connection, head, None) or connection.is_streaming:
            return False
        if not connection.unread:
            return True
        with self.open.waiting_for_client(connection):
            return connection.skip_body(head)

    def _send_pieces(self, connection: Connection, head: RequestHead, response: Any) -> bool:
        """Send a response while it is made. False where the connection cannot take another request."""
        started, sent = time.monotonic(), 0
        chunked = not head.is_http_1_0
        keep_alive = chunked and head.keep_alive and not self._stopping and connection.reusable(head)
        try:
            pieces = None if head.method == "HEAD" else self._counted(connection, response.pieces)
            sent = connection.send_stream(
                response.status, response.headers, pieces, keep_alive=keep_alive, chunked=chunked
            )
        except ServiceError as error:  # the client sees that the body is incomplete
            log.warning("%s %s was cut off: %s", head.method, head.path, error)
            keep_alive = False
        finally:
            response.pieces.close()
            spent = (time.monotonic() - started) * 1000
            access_log.info("%s %s %d %.1f ms %d bytes", head.method, head.path, response.status, spent, sent)
        return keep_alive

    def _counted(self, connection: Connection, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the pieces; while one is written, the connection waits for its client."""
        for piece in pieces:
            with self.open.waiting_for_client(connection):
                yield piece

    def _serve_request(self, connection: Connection, head: RequestHead, error: ServiceError | None) -> bool:
        """Send the response to one request and log it. False where the connection cannot take another request."""
        started = time.monotonic()
        trace = start_trace(head.headers, "gateway", redis_wait=RedisWait())
        request = HttpRequest(head.method, head.path, head.query, head.headers, trace)
        request.peer = connection.peer
        response = self._respond(request, Body(connection, head, self.open.waiting_for_client), error)
        if response.pieces is not None:
            return self._send_pieces(connection, head, response)
        body = b"" if head.method == "HEAD" else response.content
        stream = response.stream
        keep_alive = head.keep_alive and not self._stopping and connection.reusable(head) and stream is None
        try:
            with self.open.waiting_for_client(connection):
                connection.send(
                    response.status, response.headers, body, keep_alive=keep_alive, is_shared=response.is_shared
                )
            if stream is not None and head.method != "HEAD":
                self.open.enter(connection, Phase.STREAM)
                connection.hand_over(stream, partial(self.open.remove, connection))
        finally:
            if stream is not None and not connection.is_streaming:
                stream.end("client")
            spent = (time.monotonic() - started) * 1000
            access_log.info("%s %s %d %.1f ms %d bytes", head.method, head.path, response.status, spent, len(body))
        return keep_alive
