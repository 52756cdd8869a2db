"""Slow clients: those that send slowly, send nothing, or do not read are dropped, and other clients are not delayed."""

import gc
import socket
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import eventlet
import httpx
import pytest
from eventlet import patcher

from contracts.errors import ServiceUnavailable
from contracts.users import RefreshToken
from extensions.http.message.request import Access
from extensions.http.message.response import Response
from extensions.http.routing.dispatcher import HttpServer
from extensions.http.routing.route import route
from extensions.http.server import connection as connection_module
from extensions.http.server.kernel import queued_bytes
from tests.http_service import listening
from tests.stopwatch import Stopwatch
from tests.support import eventually, stated

HEAD = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
SHARED = b"y" * 1_500_000  # as large as the script of Swagger UI
GET = b"GET /much HTTP/1.1\r\nHost: x\r\n\r\n"
SHORT_SECONDS = 0.5  # instead of eight


class LargeResponses:
    name = "large"

    @route("POST", "/echo", access=Access.ANYONE, body=RefreshToken)
    def echo(self, request):
        return stated(request.body)

    @route("GET", "/much", access=Access.ANYONE)
    def much(self, _request):
        return {"text": "x" * 60_000}

    @route("GET", "/static", access=Access.ANYONE, produces="text/javascript")
    def static(self, _request):
        return Response(SHARED, is_shared=True)

    @route("GET", "/large", access=Access.ANYONE)
    def large(self, _request):
        return {"text": "x" * 300_000}

    @route("GET", "/no", access=Access.ANYONE)
    def no(self, _request):
        raise ServiceUnavailable


@pytest.fixture
def service(tmp_path, monkeypatch):
    for name in ("REQUEST_SECONDS", "WRITE_SECONDS", "LINGER_SECONDS"):
        monkeypatch.setattr(connection_module, name, SHORT_SECONDS)
    with listening(LargeResponses, tmp_path) as container:
        yield container


def test_the_production_timeouts_add_up_to_ten_seconds_at_most():
    assert connection_module.REQUEST_SECONDS + connection_module.LINGER_SECONDS <= 10
    assert connection_module.WRITE_SECONDS <= 10


@pytest.mark.parametrize("begin", [b"", HEAD], ids=["head", "body"])
def test_a_client_that_sends_byte_by_byte_is_dropped_in_time(service, begin):
    """The timeout counts from the first byte of the request and does not restart with each byte."""
    with socket.create_connection(service.address, timeout=5) as sock:
        started = Stopwatch()
        sock.sendall(begin)
        with suppress(OSError):
            for piece in b"POST /echo HTTP/1.1 and so on and on and never an end" * 3:
                sock.sendall(bytes([piece]))
                eventlet.sleep(SHORT_SECONDS / 20)
        assert started.seconds < 2 * SHORT_SECONDS + 1
        with suppress(OSError):
            while sock.recv(1000):
                pass
    eventually(lambda: not connections(service))


def test_head_and_body_share_one_timeout(service):
    with socket.create_connection(service.address, timeout=5) as sock:
        started = Stopwatch()
        for at in range(0, len(HEAD), 10):
            sock.sendall(HEAD[at : at + 10])
            eventlet.sleep(SHORT_SECONDS * 0.8 / (len(HEAD) / 10))
        assert b" 408 " in sock.recv(1000)
        assert started.seconds < SHORT_SECONDS * 1.7


@pytest.mark.parametrize("reads", [0, 200], ids=["nothing", "a little at a time"])
def test_a_client_that_does_not_read_is_dropped(service, reads):
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(5)
        sock.connect(service.address)
        sock.sendall(GET * 20)
        (connection,) = eventually(lambda: connections(service))
        eventually(lambda: connection._is_writing)
        started = Stopwatch()
        while connections(service):
            assert started.seconds < 4 * SHORT_SECONDS
            if reads:
                sock.recv(reads)
            eventlet.sleep(0.01)


def test_a_slow_reader_of_a_large_response_is_served(tmp_path, monkeypatch):
    """The write timeout counts for each piece and not for the whole response."""
    monkeypatch.setattr(connection_module, "WRITE_SECONDS", SHORT_SECONDS)
    monkeypatch.setattr(connection_module, "PIECE_BYTES", 4096)
    with listening(LargeResponses, tmp_path) as service, socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(5)
        sock.connect(service.address)
        sock.sendall(GET * 7 + GET.replace(b"Host: x", b"Host: x\r\nConnection: close"))
        received, started = b"", time.monotonic()
        while piece := sock.recv(4096):
            received += piece
            eventlet.sleep(0.01)
        assert received.count(b"HTTP/1.1 200 ") == 8
        assert time.monotonic() - started > 2 * SHORT_SECONDS


def slow_client(address, begin):
    sock = socket.create_connection(address, timeout=5)
    sock.sendall(begin)
    return sock


@pytest.mark.parametrize("begin", [b"GET /mu", HEAD + b"{", GET * 40], ids=["head", "body", "response"])
def test_slow_clients_are_evicted_for_new_ones(tmp_path, monkeypatch, begin):
    """Slow clients hold the maximum number of connections, and other clients are still served."""
    room = 40
    with listening(LargeResponses, tmp_path) as service, ExitStack() as held:
        monkeypatch.setattr(service.shared_extensions[HttpServer]._listener.open, "max_connections", room)
        for _ in range(2 * room):
            held.enter_context(slow_client(service.address, begin))
        eventually(lambda: len(connections(service)) == room)
        url = f"http://{service.address[0]}:{service.address[1]}/much"
        with httpx.Client(timeout=5, verify=False) as client, ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(lambda _: client.get(url).status_code, range(100)))
        assert statuses == [200] * 100
        assert len(connections(service)) <= room
        # Evicted connections are freed, not only removed from the table.
        eventually(lambda: living_connections() <= room, timeout=3)


def silent_reader(address, path):
    """Request a response, and read nothing of it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(5)
    sock.connect(address)
    sock.sendall(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path)
    return sock


def read_to_the_end(sock):
    received = b""
    while piece := sock.recv(65536):
        received += piece
    return received


def is_writing(service, count):
    return sum(connection._is_writing for connection in connections(service)) == count


def test_slow_readers_of_a_static_file_do_not_each_hold_a_copy_of_it(tmp_path):
    readers = 40
    with listening(LargeResponses, tmp_path) as service, ExitStack() as held:
        tracemalloc.start()
        try:
            for _ in range(readers):
                held.enter_context(silent_reader(service.address, b"/static"))
            eventually(lambda: is_writing(service, readers))
            assert tracemalloc.get_traced_memory()[0] < 5 * len(SHARED)
        finally:
            tracemalloc.stop()
        for connection in connections(service):
            assert connection.held_bytes() < 400_000


def test_a_static_file_arrives_whole(tmp_path):
    with listening(LargeResponses, tmp_path) as service:
        url = f"http://{service.address[0]}:{service.address[1]}"
        assert httpx.get(f"{url}/static", verify=False).content == SHARED


@pytest.mark.parametrize("path", [b"/static", b"/large"])
def test_the_slowest_readers_are_dropped_when_all_together_hold_too_much(tmp_path, path):
    bound = 2_000_000
    with listening(LargeResponses, tmp_path, HTTP_MAX_BUFFERED_BYTES=bound) as service, ExitStack() as held:
        readers = [held.enter_context(silent_reader(service.address, path)) for _ in range(30)]
        eventually(lambda: len(connections(service)) < 30 and is_writing(service, len(connections(service))))
        eventually(lambda: sum(connection.held_bytes() for connection in connections(service)) <= bound)
        assert connections(service), "a client that is slow has its response where there is room"
        # Mostly the first one is dropped, on a busy machine another one: what the kernel held for it is gone.
        assert any(len(read_to_the_end(reader)) < 50_000 for reader in readers)
        url = f"http://{service.address[0]}:{service.address[1]}/much"
        assert httpx.get(url, verify=False).status_code == 200


def test_slow_senders_count_as_well(tmp_path):
    bound = 2_000_000
    begin = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 65000\r\n\r\n{"
    with listening(LargeResponses, tmp_path, HTTP_MAX_BUFFERED_BYTES=bound) as service, ExitStack() as held:
        for _ in range(50):
            held.enter_context(slow_client(service.address, begin))
        eventually(lambda: 0 < len(connections(service)) <= bound // 65000)


def test_what_a_client_sends_before_its_turn_is_bounded(tmp_path):
    """The kernel would otherwise receive megabytes of requests that wait for the one before."""
    with listening(LargeResponses, tmp_path) as service, silent_reader(service.address, b"/static") as sock:
        (connection,) = eventually(lambda: is_writing(service, 1) and connections(service))
        sock.settimeout(0.5)
        with suppress(TimeoutError):
            while True:
                sock.send(b"GET /no HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
        assert queued_bytes(connection._sock) < 1_000_000


LEAVERS = {
    "no request": b"hello\r\n\r\n",
    "half a head": b"GET /mu",
    "half a body": HEAD + b"{",
    "an unread body": b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n",
    "an unread response": GET * 400,
    "a refusal": b"GET /no HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
}


@pytest.mark.parametrize("leaver", LEAVERS.values(), ids=LEAVERS)
def test_a_dropped_connection_leaves_no_reference_cycle(service, leaver):
    """Collecting the cycles of two thousand slow clients would stop all requests for a tenth of a second."""

    def connect_and_leave():
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(5)
            sock.connect(service.address)
            sock.sendall(leaver)
            assert sock.recv(1)
            eventually(lambda: not connections(service))

    gc.collect()
    gc.disable()
    try:
        connect_and_leave()
        eventually(lambda: not living_connections(), timeout=2)
    finally:
        gc.enable()


def test_a_connection_consists_of_few_objects(service):
    """The garbage collector traverses the objects of every slow client while all requests wait.

    Ours has some 20 of them; with the usual greenlets and sockets there would be 40.
    """
    plain = patcher.original("socket")
    clients = 50

    def objects():
        gc.collect()
        return len(gc.get_objects())

    with ExitStack() as held:
        before = objects()
        for _ in range(clients):
            sock = held.enter_context(plain.create_connection(service.address))
            sock.sendall(b"GET /mu")
        eventually(lambda: sum(each.unread for each in connections(service)) == clients)
        assert (objects() - before) / clients < 27


def connections(service):
    """The open connections of the server."""
    return list(service.shared_extensions[HttpServer]._listener.open)


def living_connections():
    """The number of connection objects that are still referenced."""
    return sum(type(each) is connection_module.Connection for each in gc.get_objects())  # weak proxies may be dead
