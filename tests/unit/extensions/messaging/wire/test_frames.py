"""Our frames are the bytes that py-amqp writes, and our transport reads what py-amqp reads."""

import socket
from types import SimpleNamespace

import amqp
import eventlet
import pytest
from amqp.exceptions import UnexpectedFrame
from amqp.method_framing import frame_writer
from amqp.serialization import dumps, loads

from extensions.messaging import reconnecting_connection
from extensions.messaging.wire import frames
from extensions.messaging.wire.transport import BufferedTransport
from extensions.runtime.progress import Loop

FRAME_MAX = 4096
CALL = {
    "correlation_id": "c-1",
    "reply_to": "an-address",
    "expiration": "4000",
    "headers": {"x-request-id": "ürgent", "traceparent": "00-1-2-01"},
}


def written_by_amqp(sig, arguments, content=None):
    """The bytes that py-amqp sends for a method on channel 3."""
    written = bytearray()
    transport = SimpleNamespace(write=lambda data: written.extend(bytes(data)))
    frame_writer(SimpleNamespace(frame_max=FRAME_MAX, bytes_sent=0), transport)(1, 3, sig, arguments, content)
    return bytes(written)


@pytest.mark.parametrize("body", ["{}", '"ğ"', "x" * 10_000, "x" * (2 * (FRAME_MAX - 8)), ""], ids=len)
@pytest.mark.parametrize("properties", [{"correlation_id": "c-1"}, {}, CALL], ids=["reply", "bare", "call"])
@pytest.mark.parametrize("mandatory", [True, False])
def test_a_message(body, properties, mandatory):
    theirs = dict(properties)
    headers = {"application_headers": theirs.pop("headers")} if "headers" in theirs else {}
    content = amqp.Message(body, content_type="application/json", content_encoding="utf-8", **theirs, **headers)
    expected = written_by_amqp((60, 40), dumps("Bssbb", (0, "rpc", "users.login", mandatory, False)), content)
    assert frames.message(3, FRAME_MAX, body, "rpc", "users.login", mandatory=mandatory, **properties) == expected


def test_an_acknowledgement():
    expected = written_by_amqp((60, 80), dumps("Lb", (2**40, False)))
    assert frames.acknowledgement(3, 2**40) == expected


@pytest.mark.parametrize("name", ["correlation_id", "reply_to", "expiration"])
def test_an_id_that_is_too_long_for_amqp_is_an_error(name):
    assert frames.message(3, FRAME_MAX, "{}", "rpc", "users.login", **{name: "x" * 255})
    with pytest.raises(ValueError, match="256"):
        frames.message(3, FRAME_MAX, "{}", "rpc", "users.login", **{name: "x" * 256})


@pytest.mark.parametrize("redelivered", [True, False])
def test_a_delivery(redelivered):
    payload = dumps("BB", (60, 60)) + dumps("sLbss", ("a tag", 2**40, redelivered, "", "users.löschen"))
    assert list(frames.delivery(payload)) == loads("sLbss", payload, 4)[0]


@pytest.fixture
def ends():
    """A transport, and the other end of its connection."""
    ours, theirs = socket.socketpair()
    transport = BufferedTransport("localhost")
    transport.sock, transport.connected = ours, True
    transport._setup_transport()
    yield transport, theirs
    ours.close()
    theirs.close()


SENT = frames.acknowledgement(3, 7) + frames.message(1, FRAME_MAX, "x" * 5000, "rpc", "users.login")


@pytest.mark.parametrize("pieces", [7, 1000, len(SENT)])
def test_frames_are_read_from_pieces_of_any_size(ends, pieces):
    transport, theirs = ends
    transport.sock.settimeout(0.001)
    read = []
    for at in range(0, len(SENT), pieces):
        theirs.sendall(SENT[at : at + pieces])
        try:
            while True:
                read.append(transport.read_frame())
        except TimeoutError:  # a partial frame is not lost
            assert transport.connected
    assert [kind for kind, _channel, _payload in read] == [1, 1, 2, 3, 3]
    assert b"".join(payload for kind, _channel, payload in read if kind == frames.BODY) == b"x" * 5000


def test_a_connection_that_ends_in_the_middle_of_a_frame_is_lost(ends):
    transport, theirs = ends
    theirs.sendall(SENT[:10])
    theirs.close()
    with pytest.raises(OSError, match="closed"):
        transport.read_frame()
    assert not transport.connected


def test_invalid_frame_bytes_are_an_error(ends):
    transport, theirs = ends
    theirs.sendall(frames.acknowledgement(3, 7)[:-1] + b"\x00")
    with pytest.raises(UnexpectedFrame):
        transport.read_frame()
    transport.close()
    with pytest.raises(OSError, match="closed"):
        transport.write(b"")


def write(transport, data):
    """Write in a new greenlet, which returns "written" or the error.

    It raises nothing: eventlet's hub would raise the error again in a greenlet that waits on that socket.
    """

    def attempt():
        try:
            transport.write(data)
        except OSError as error:
            return str(error)
        return "written"

    return eventlet.spawn(attempt)


def fill(transport, theirs):
    """Start a greenlet that blocks in the middle of a write; returns it."""
    writing = write(transport, b"x" * 10_000_000)
    theirs.recv(1)  # the write has started
    eventlet.sleep(0)
    assert not writing.dead
    return writing


@pytest.mark.parametrize("waiting", [0, 2])
def test_an_interrupted_write_ends_its_connection(ends, waiting):
    """The broker would read the next write as the rest of the frame."""
    transport, theirs = ends
    writing = fill(transport, theirs)
    others = [write(transport, SENT) for _ in range(waiting)]
    eventlet.sleep(0)
    writing.kill()
    with eventlet.Timeout(5):
        for other in others:
            assert "Broken pipe" in other.wait()
        with pytest.raises(OSError, match="Broken pipe"):
            transport.write(SENT)
        assert not transport.connected
        while read := theirs.recv(65536):
            assert not read.strip(b"x")
        with pytest.raises(OSError, match="closed"):
            transport.read_frame()


def test_a_writer_that_is_killed_while_it_waits_interrupts_no_write(ends):
    transport, theirs = ends
    writing = fill(transport, theirs)
    killed, waiting = write(transport, b"y"), write(transport, b"z")
    eventlet.sleep(0)
    killed.kill()
    with eventlet.Timeout(5):
        read = b""
        while not read.endswith(b"z"):
            read += theirs.recv(65536)
        assert writing.wait() == waiting.wait() == "written"
    assert read.strip(b"x") == b"z"
    assert transport.connected


def test_a_connection_whose_peer_does_not_read_is_closed(ends, monkeypatch):
    monkeypatch.setattr(reconnecting_connection, "HEARTBEAT_SECONDS", 0.1)
    transport, theirs = ends
    writing = fill(transport, theirs)
    beat = lambda: transport.write(b"a heartbeat")  # noqa: E731
    beating = SimpleNamespace(transport=transport, connected=True, heartbeat_tick=beat)
    with eventlet.Timeout(5):
        eventlet.spawn(reconnecting_connection._send_heartbeats, beating, Loop(""))
        with pytest.raises(OSError, match="closed"):
            transport.read_frame()
        assert "Broken pipe" in writing.wait()


def test_a_routing_key_that_is_not_utf_8_is_decoded_with_replacement():
    payload = dumps("BB", (60, 60)) + dumps("sLbss", ("a tag", 7, False, "nameko-rpc", b"users.\xff"))
    assert frames.delivery(payload) == ("a tag", 7, False, "nameko-rpc", "users.\N{REPLACEMENT CHARACTER}")
