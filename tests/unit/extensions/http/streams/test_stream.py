"""A stream on a real socket pair: what it keeps for a slow client, and how it finds out that a client has gone."""

import socket
from datetime import UTC, datetime
from uuid import uuid4

import eventlet
import pytest

from contracts.users import Role
from extensions.http.streams import stream as module
from extensions.http.streams.stream import BUFFER_BYTES, Stream
from extensions.security.access_tokens import AccessToken
from tests.support import eventually

PIECE = b"x" * 10_000


@pytest.fixture
def ends():
    return []


@pytest.fixture
def stream(ends):
    now = datetime.now(UTC)
    stream = Stream("order", AccessToken(uuid4(), (Role.CUSTOMER,), now, now), 0.0, 0)
    stream.on_end(lambda _stream, reason: ends.append(reason))
    return stream


@pytest.fixture
def opened(stream):
    """The stream and its client's socket, with small buffers of the kernel."""
    ours, client = socket.socketpair()
    closed = []
    ours.setblocking(False)
    client.setblocking(False)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)

    def close():
        closed.append(True)
        ours.close()

    stream.open(ours, close)
    yield stream, client, closed
    if not closed:
        stream.end("shutdown")
    client.close()


def received(client):
    data = b""
    while True:
        try:
            piece = client.recv(65536)
        except BlockingIOError:
            return data
        if not piece:
            return data
        data += piece
        eventlet.sleep(0)


def test_bytes_before_the_head_are_sent_with_it(stream):
    stream.send(b"first ")
    stream.send(b"second")
    assert stream.take_first() == b"first second"
    assert (stream.take_first(), stream.buffered) == (b"", 0)


def test_bytes_reach_the_client_in_order(opened):
    stream, client, _ = opened
    for number in range(50):
        stream.send(bytes([number]) * 2000)
    assert stream.buffered > 0
    data = b""

    def all_arrived():
        nonlocal data
        data += received(client)
        return len(data) == 100_000

    eventually(all_arrived)
    assert data == b"".join(bytes([number]) * 2000 for number in range(50))
    eventually(lambda: stream.buffered == 0)
    assert stream.behind_since == 0.0


def test_a_client_that_does_not_read_is_dropped_with_bounded_memory(opened, ends):
    stream, _client, closed = opened
    most = 0
    while not stream.ended:
        stream.send(PIECE)
        most = max(most, stream.buffered)
    assert (ends, closed) == (["slow"], [True])
    assert BUFFER_BYTES - len(PIECE) <= most <= BUFFER_BYTES
    assert stream.buffered == 0
    stream.send(PIECE)  # nothing happens
    assert stream.buffered == 0


def test_a_client_that_was_not_behind_may_get_more_at_once(opened):
    stream, _client, _ = opened
    stream.send(b"x" * (2 * BUFFER_BYTES))
    assert not stream.ended
    stream.send(b"x")
    assert stream.ended == "slow"


def test_a_client_that_closes_is_noticed_without_a_write(opened, ends):
    stream, client, closed = opened
    client.close()
    eventually(lambda: stream.ended)
    assert (ends, closed) == (["client"], [True])


def test_what_a_client_sends_is_dropped_and_bounded(opened, monkeypatch):
    stream, client, _ = opened
    monkeypatch.setattr(module, "MAX_RECEIVED_BYTES", 10)
    client.send(b"GET /")
    eventlet.sleep(0.01)
    assert not stream.ended
    client.send(b"GET / HTTP/1.1")
    eventually(lambda: stream.ended)


def test_a_client_is_told_why_the_stream_ends(opened, ends):
    stream, client, _ = opened
    stream.end("rotation")
    stream.end("shutdown")
    assert received(client) == b'event: end\ndata: {"reason":"rotation"}\n\n'
    assert ends == ["rotation"]


def test_a_stream_that_ended_before_its_head_is_closed_when_it_opens(stream):
    stream.end("shutdown")
    ours, client = socket.socketpair()
    with ours, client:
        closed = []
        stream.open(ours, lambda: closed.append(True))
        assert closed == [True]


def test_who_asks_after_the_end_is_told_at_once(stream):
    stream.end("shutdown")
    told = []
    stream.on_end(lambda _stream, reason: told.append(reason))
    assert told == ["shutdown"]


def test_one_failing_callback_does_not_keep_the_others_from_running(stream, ends):
    later = []

    def fail(*_arguments):
        raise RuntimeError("wrong")

    stream.on_end(fail)
    stream.on_end(lambda *_arguments: later.append(True))
    stream.end("client")
    assert (ends, later) == (["client"], [True])
