"""Clients that dribble, that fall silent, that do not read: they are dropped, and the others do not notice."""

import gc
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import eventlet
import httpx
import pytest
from eventlet import patcher

from contracts.errors import ServiceUnavailable
from contracts.users import RefreshToken
from extensions.http.message.request import Access
from extensions.http.routing.dispatcher import HttpServer
from extensions.http.routing.route import route
from extensions.http.server import connection as wire
from tests.http_service import listening
from tests.stopwatch import Stopwatch
from tests.support import eventually

HEAD = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
GET = b"GET /much HTTP/1.1\r\nHost: x\r\n\r\n"
QUICK = 0.5  # seconds, in place of eight


class Generous:
    """Takes a little, gives much."""

    name = "generous"

    @route("POST", "/echo", access=Access.ANYONE, body=RefreshToken)
    def echo(self, request):
        return request.body

    @route("GET", "/much", access=Access.ANYONE)
    def much(self, _request):
        return {"text": "x" * 60_000}

    @route("GET", "/no", access=Access.ANYONE)
    def no(self, _request):
        raise ServiceUnavailable


@pytest.fixture
def service(tmp_path, monkeypatch):
    for name in ("REQUEST_SECONDS", "WRITE_SECONDS", "LINGER_SECONDS"):
        monkeypatch.setattr(wire, name, QUICK)
    with listening(Generous, tmp_path) as container:
        yield container


def test_in_production_ten_seconds_are_enough_for_all_of_it():
    assert wire.REQUEST_SECONDS + wire.LINGER_SECONDS <= 10
    assert wire.WRITE_SECONDS <= 10


@pytest.mark.parametrize("begin", [b"", HEAD], ids=["head", "body"])
def test_who_dribbles_byte_by_byte_is_dropped_in_time(service, begin):
    """However regularly a byte comes: what counts is the whole request, from its first byte on."""
    with socket.create_connection(service.address, timeout=5) as sock:
        started = Stopwatch()
        sock.sendall(begin)
        with suppress(OSError):
            for piece in b"POST /echo HTTP/1.1 and so on and on and never an end" * 3:
                sock.sendall(bytes([piece]))
                eventlet.sleep(QUICK / 20)
        assert started.seconds < 2 * QUICK + 1
        with suppress(OSError):
            while sock.recv(1000):
                pass
    eventually(lambda: not connections(service))


def test_a_dribbled_head_leaves_no_time_of_its_own_for_the_body(service):
    with socket.create_connection(service.address, timeout=5) as sock:
        started = Stopwatch()
        for at in range(0, len(HEAD), 10):
            sock.sendall(HEAD[at : at + 10])
            eventlet.sleep(QUICK * 0.8 / (len(HEAD) / 10))
        assert b" 408 " in sock.recv(1000)
        assert started.seconds < QUICK * 1.7


@pytest.mark.parametrize("reads", [0, 200], ids=["nothing", "a little at a time"])
def test_who_does_not_read_is_dropped(service, reads):
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(5)
        sock.connect(service.address)
        sock.sendall(GET * 20)
        (connection,) = eventually(lambda: connections(service))
        eventually(lambda: connection._is_writing)
        started = Stopwatch()
        while connections(service):
            assert started.seconds < 4 * QUICK
            if reads:
                sock.recv(reads)
            eventlet.sleep(0.01)


def test_a_slow_reader_of_much_is_served(tmp_path, monkeypatch):
    """What counts is each piece and not the whole answer."""
    monkeypatch.setattr(wire, "WRITE_SECONDS", QUICK)
    monkeypatch.setattr(wire, "PIECE_BYTES", 4096)
    with listening(Generous, tmp_path) as service, socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(5)
        sock.connect(service.address)
        sock.sendall(GET * 7 + GET.replace(b"Host: x", b"Host: x\r\nConnection: close"))
        received, started = b"", time.monotonic()
        while piece := sock.recv(4096):
            received += piece
            eventlet.sleep(0.01)
        assert received.count(b"HTTP/1.1 200 ") == 8
        assert time.monotonic() - started > 2 * QUICK


def dribbler(address, begin):
    sock = socket.create_connection(address, timeout=5)
    sock.sendall(begin)
    return sock


@pytest.mark.parametrize("begin", [b"GET /mu", HEAD + b"{", GET * 40], ids=["head", "body", "answer"])
def test_the_slow_make_room_for_the_honest(tmp_path, monkeypatch, begin):
    """Every connection there may be is held by somebody slow, and still everybody else is answered."""
    room = 40
    with listening(Generous, tmp_path) as service, ExitStack() as held:
        monkeypatch.setattr(service.shared_extensions[HttpServer]._listening, "_max_connections", room)
        for _ in range(2 * room):
            held.enter_context(dribbler(service.address, begin))
        eventually(lambda: len(connections(service)) == room)
        url = f"http://{service.address[0]}:{service.address[1]}/much"
        with httpx.Client(timeout=5) as client, ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: client.get(url).status_code, range(100)))
        assert answers == [200] * 100
        assert len(connections(service)) <= room
        # Who was given up is gone, and not just forgotten.
        eventually(lambda: living_connections() <= room, timeout=3)


LEAVERS = {
    "no request": b"hello\r\n\r\n",
    "half a head": b"GET /mu",
    "half a body": HEAD + b"{",
    "an unread body": b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n",
    "an unread answer": GET * 400,
    "a refusal": b"GET /no HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
}


@pytest.mark.parametrize("leaver", LEAVERS.values(), ids=LEAVERS)
def test_who_is_dropped_leaves_nothing_to_the_garbage_collector(service, leaver):
    """With two thousand slow clients, its search for what they left stops everybody for a tenth of a second."""

    def come_and_go():
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
        come_and_go()
        eventually(lambda: not living_connections(), timeout=2)
    finally:
        gc.enable()


def test_the_garbage_collector_has_little_to_look_at(service):
    """It looks at every object of every slow client while everybody else waits.

    Some 20 of them are the server's, where the greenlets and sockets of the usual kind make it 40.
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
    """Those that the server holds now."""
    return list(service.shared_extensions[HttpServer]._listening._open)


def living_connections():
    """How many have something that still needs them."""
    return sum(isinstance(each, wire.Connection) for each in gc.get_objects())
