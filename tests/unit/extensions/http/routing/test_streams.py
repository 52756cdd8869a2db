"""Streams of a real HTTP server: heads, limits, heartbeats, rotation, revoked sessions, and the stop."""

import socket
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import uuid4

import eventlet
import pytest

from contracts.users import Role, UserUpdated
from extensions.http.message.request import Access
from extensions.http.routing import streams as module
from extensions.http.routing.authentication import AccessTokens
from extensions.http.routing.declaration import EVENT_STREAM
from extensions.http.routing.dispatcher import HttpServer
from extensions.http.routing.route import route
from extensions.http.routing.streams import StreamResponse, Streams, _end_time
from extensions.http.server import connection as connection_module
from extensions.http.server.connection_table import Phase
from extensions.http.streams.stream import BUFFER_BYTES
from extensions.security.access_tokens import AccessToken
from tests.http_service import listening
from tests.stopwatch import Stopwatch
from tests.support import eventually

USER = uuid4()


class Streaming:
    name = "streaming"
    opened = ()

    @route("GET", "/stream", access=Access.USER, produces=EVENT_STREAM)
    def stream(self, request):
        stream = request.shared.create("order", request)
        stream.send(b"data: 1\n\n")
        self.opened.append(stream)
        return StreamResponse(stream)

    @route("GET", "/admin/stream", access=Access.ADMIN, produces=EVENT_STREAM)
    def admin_stream(self, request):
        stream = request.shared.create("admin", request, needs_admin=True)
        self.opened.append(stream)
        return StreamResponse(stream)

    @route("GET", "/ping", access=Access.ANYONE)
    def ping(self, _request):
        return {}


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Start the server: `serve(HTTP_MAX_STREAMS=2)`; every token is one of USER, valid for `serve.seconds`."""
    with pytest.MonkeyPatch.context() as patch:
        services = []

        def start(**settings):
            Streaming.opened = []
            context = listening(Streaming, tmp_path, **settings)
            container = context.__enter__()
            services.append(context)
            start.streams = container.shared_extensions[Streams]
            start.table = container.shared_extensions[HttpServer]._listener.open
            verified = start.verified = container.shared_extensions[AccessTokens].verified
            patch.setattr(module.HttpRequest, "shared", start.streams, raising=False)

            def verify(text):
                now = datetime.now(UTC)
                roles = (Role.CUSTOMER, Role.ADMIN) if text == "admin" else (Role.CUSTOMER,)
                token = AccessToken(USER, roles, now, now + timedelta(seconds=start.seconds))
                return verified.current(token)

            patch.setattr(verified, "verify", verify)
            return container

        start.seconds = 900
        yield start
        for context in services:
            context.__exit__(None, None, None)


def ask(container, path="/stream", method="GET", token="customer", version="1.1"):
    """Open a stream; returns the socket."""
    sock = socket.create_connection(container.address, timeout=20)
    sock.sendall(f"{method} {path} HTTP/{version}\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    return sock


def read_until(sock, text):
    data = b""
    while text not in data:
        piece = sock.recv(4096)
        assert piece, data
        data += piece
    return data


def read_all(sock):
    data = b""
    with suppress(ConnectionError):
        while piece := sock.recv(65536):
            data += piece
    return data


def test_the_first_bytes_come_at_once_and_the_connection_stays_open(serve):
    container = serve()
    with ask(container) as sock:
        head, _, body = read_until(sock, b"data: 1\n\n").partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        assert lines[0] == "HTTP/1.1 200 OK"
        assert {
            "Content-Type: text/event-stream",
            "Cache-Control: no-store, no-transform",
            "X-Accel-Buffering: no",
            "Connection: close",
        } <= set(lines)
        assert not any(line.startswith(("Content-Length", "ETag")) for line in lines)
        assert body == b"retry: 2000\n\n:\n\ndata: 1\n\n"
        Streaming.opened[0].send(b"data: 2\n\n")
        assert read_until(sock, b"data: 2\n\n")
        # It is neither a busy worker nor a request in flight, but it is an open connection.
        assert container._worker_pool.running() == 0
        assert list(serve.table._phases.values()) == [Phase.STREAM]
    eventually(lambda: len(serve.table) == 0)
    assert serve.streams.count("order") == 0


def test_head_and_if_none_match_open_no_stream(serve):
    container = serve()
    with ask(container, method="HEAD") as sock:
        assert read_all(sock).endswith(b"\r\n\r\n")
    assert serve.streams.count("order") == 0
    with socket.create_connection(container.address, timeout=20) as sock:
        request = "GET /stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer customer\r\nIf-None-Match: *\r\n\r\n"
        sock.sendall(request.encode())
        assert read_until(sock, b"data: 1").startswith(b"HTTP/1.1 200 ")


def test_streams_beyond_the_limit_are_refused_politely(serve):
    container = serve(HTTP_MAX_STREAMS=2)
    first, second = ask(container), ask(container)
    read_until(first, b"data: 1"), read_until(second, b"data: 1")
    with ask(container) as third:
        refused = read_until(third, b"}")
    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 5" in refused
    assert b'"SERVICE_UNAVAILABLE"' in refused
    first.close()
    eventually(lambda: serve.streams.count("order") == 1)
    with ask(container) as fourth:
        assert read_until(fourth, b"data: 1")
    second.close()


def test_the_streams_of_one_user_are_limited(serve):
    container = serve(HTTP_MAX_STREAMS_PER_USER={"production": 1, "elsewhere": 1})
    with ask(container) as first, ask(container) as second:
        read_until(first, b"data: 1")
        assert read_until(second, b"}").startswith(b"HTTP/1.1 429 ")


@pytest.mark.parametrize("valid_for", [0.2, 3.0, 20.0, 900.0, 5000.0])
def test_a_stream_ends_before_its_token_expires(valid_for):
    for _ in range(100):
        lasts = _end_time(valid_for) - time.monotonic()
        assert 0 < lasts < valid_for
        assert lasts <= module.MAX_SECONDS


def test_a_stream_is_rotated_before_its_token_expires(serve):
    container = serve()
    serve.seconds = 2
    with ask(container) as sock:
        told = read_all(sock)
    assert told.endswith(b'event: end\ndata: {"reason":"rotation"}\n\n')


def test_the_end_of_a_session_ends_its_streams(serve, monkeypatch):
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 1)
    container = serve()
    with ask(container) as customer, ask(container, "/admin/stream", token="admin") as admin:
        read_until(customer, b"data: 1"), read_until(admin, b":\n\n")
        later = datetime.now(UTC) + timedelta(seconds=5)
        serve.verified.update(UserUpdated(user_id=USER, roles=(Role.CUSTOMER,), is_active=True, at=later))
        assert b'{"reason":"revoked"}' in read_all(admin)  # no administrator any more
        assert serve.streams.count("order") == 1
        later += timedelta(seconds=5)
        serve.verified.update(UserUpdated(user_id=USER, roles=(), is_active=False, at=later))
        assert b'{"reason":"revoked"}' in read_all(customer)


def test_an_idle_stream_gets_comments(serve, monkeypatch):
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 2)
    container = serve()
    with ask(container) as sock:
        read_until(sock, b"data: 1\n\n")
        assert read_until(sock, b":\n\n:\n\n") == b":\n\n:\n\n"


def test_heartbeats_are_spread(serve, monkeypatch):
    """In each tenth of a second as many streams get a comment, and in 15 s all of them."""
    serve()
    token = AccessToken(USER, (Role.CUSTOMER,), datetime.now(UTC), datetime.now(UTC) + timedelta(hours=1))
    request = SimpleNamespace(token=token)
    made = [serve.streams.create("order", request) for _ in range(300)]
    visited = []
    monkeypatch.setattr(serve.streams, "_visit", lambda stream, _now: visited.append(stream))
    per_tick = []
    for slot in range(150):
        visited.clear()
        serve.streams._visit_all(slot)
        per_tick.append(len(visited))
    assert per_tick == [2] * 150
    assert module.TICK_SECONDS * 150 == module.HEARTBEAT_SECONDS
    for stream in made:
        stream.end("client")


def test_a_stream_whose_response_was_never_sent_is_given_up(serve, monkeypatch):
    serve()
    now = datetime.now(UTC)
    token = AccessToken(USER, (Role.CUSTOMER,), now, now + timedelta(hours=1))
    stream = serve.streams.create("order", SimpleNamespace(token=token))
    serve.streams._visit(stream, time.monotonic())
    assert not stream.ended
    serve.streams._visit(stream, time.monotonic() + module.UNOPENED_SECONDS + 1)
    assert stream.ended == "client"
    assert serve.streams.count("order") == 0


def test_a_slow_reader_is_dropped_and_the_others_go_on(serve):
    container = serve()
    with ask(container) as slow, ask(container) as other:
        read_until(slow, b"data: 1"), read_until(other, b"data: 1")
        (slow_one, other_one), piece = Streaming.opened, b"data: " + b"x" * 50_000 + b"\n\n"
        most = 0
        while not slow_one.ended:
            slow_one.send(piece)
            most = max(most, slow_one.buffered)
            eventlet.sleep(0.001)
        assert slow_one.ended == "slow"
        assert most <= BUFFER_BYTES
        other_one.send(b"data: 2\n\n")
        assert read_until(other, b"data: 2\n\n")


def test_a_client_that_takes_nothing_for_long_is_dropped(serve):
    container = serve()
    with ask(container) as sock:
        read_until(sock, b"data: 1")
        (stream,) = Streaming.opened
        while not stream.buffered:
            stream.send(b"x" * 50_000)
        now = time.monotonic()
        serve.streams._visit(stream, now + module.STUCK_SECONDS - 1)
        assert not stream.ended
        serve.streams._visit(stream, now + module.STUCK_SECONDS + 1)
        assert stream.ended == "slow"


def test_memory_that_slow_streams_hold_counts_among_all_connections(serve):
    container = serve(HTTP_MAX_BUFFERED_BYTES=300_000)
    socks = [ask(container) for _ in range(3)]
    for sock in socks:
        read_until(sock, b"data: 1")
    for stream in Streaming.opened:
        while stream.buffered < 150_000:
            stream.send(b"x" * 50_000)
    eventually(lambda: sum(bool(stream.ended) for stream in Streaming.opened) >= 1)
    for sock in socks:
        sock.close()


def test_the_kernel_is_not_asked_about_idle_streams(serve, monkeypatch):
    container = serve(HTTP_MAX_BUFFERED_BYTES=1)  # so that the memory is checked
    socks = [ask(container) for _ in range(10)]
    for sock in socks:
        read_until(sock, b"data: 1")
    eventually(lambda: not any(stream.may_be_queued for stream in Streaming.opened))
    asked, queued_bytes = [], connection_module.queued_bytes
    monkeypatch.setattr(connection_module, "queued_bytes", lambda sock: asked.append(sock) or queued_bytes(sock))
    for connection in serve.table:
        assert connection.held_bytes() == 0
    assert asked == []
    Streaming.opened[0].send(b"data: 2\n\n")
    for connection in serve.table:
        connection.held_bytes()
    assert len(asked) == 1
    for sock in socks:
        sock.close()


def test_streams_are_evicted_only_after_all_other_connections(serve):
    container = serve()
    serve.table.max_connections = 2
    with ask(container) as stream, socket.create_connection(container.address, timeout=20) as idle:
        read_until(stream, b"data: 1")
        eventually(lambda: len(serve.table) == 2)
        with socket.create_connection(container.address, timeout=20) as other:
            other.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
            assert read_until(other, b"{}")
            assert idle.recv(10) == b""
            assert not Streaming.opened[0].ended


def test_a_stop_ends_streams_at_once(serve):
    container = serve()
    socks = [ask(container) for _ in range(20)]
    for sock in socks:
        read_until(sock, b"data: 1")
    began = Stopwatch()
    container.shared_extensions[HttpServer].finish()
    assert began.seconds < 1
    assert all(read_all(sock).endswith(b'{"reason":"shutdown"}\n\n') for sock in socks)
    for sock in socks:
        sock.close()
    request = SimpleNamespace(token=replace(Streaming.opened[0].token))
    with pytest.raises(module.TooManyStreams):
        serve.streams.create("order", request)
