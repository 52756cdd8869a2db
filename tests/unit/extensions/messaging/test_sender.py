"""Sending calls and results while the broker does not read."""

import socket
from contextlib import suppress
from types import SimpleNamespace

import eventlet
import pytest
from eventlet.green import socket as green

from contracts.errors import UpstreamTimeout
from extensions.messaging.connection import BrokerUnavailable
from extensions.messaging.sender import Sender
from tests.stopwatch import Stopwatch
from tests.support import eventually

WHOLE = b"x" * 5_000_000  # more than the kernel buffers


class Channel:
    """A channel on a socket whose other end may not read. It notes when a send begins and ends."""

    def __init__(self):
        self.ours, self.theirs = green.socketpair()
        self.connection = SimpleNamespace(transport=SimpleNamespace(sock=self.ours))
        self.begun, self.sent = [], []

    def send(self, operation):
        self.begun.append(operation)
        self.ours.sendall(operation)
        self.sent.append(operation)

    def fill(self):
        """Let the kernel take no more bytes."""
        self.ours.fd.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                self.ours.fd.send(b"f" * 65536)

    def read(self):
        """Read everything from now on."""

        def forever():
            with suppress(OSError, EOFError):
                while self.theirs.recv(1 << 20):
                    pass

        return eventlet.spawn(forever)


@pytest.fixture
def channel():
    one = Channel()
    yield one
    for end in (one.ours, one.theirs):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


def test_a_send_that_the_kernel_takes_is_made_at_once(channel):
    Sender().send(channel, b"a", 0.0)
    assert channel.sent == [b"a"]
    assert channel.theirs.recv(10) == b"a"


def test_a_send_ends_at_its_deadline_and_is_not_interrupted(channel):
    sender = Sender()
    channel.fill()
    began = Stopwatch()
    with pytest.raises(UpstreamTimeout, match="Whether it is sent is unknown"):
        sender.send(channel, WHOLE, 0.2)
    for _ in range(3):  # they wait for their turn
        with pytest.raises(BrokerUnavailable, match="does not take messages"):
            sender.send(channel, b"b", 0.1)
    assert began.seconds < 2
    assert channel.begun == [WHOLE]  # one greenlet waits, however many calls there are
    channel.read()
    eventually(lambda: channel.sent == [WHOLE])  # whole: the connection can still be used
    eventually(lambda: sends(sender, channel, b"c"))


def sends(sender, channel, operation):
    try:
        sender.send(channel, operation, 1.0)
    except (BrokerUnavailable, UpstreamTimeout):
        return False
    return operation in channel.sent


def test_those_who_wait_send_when_the_broker_reads_again(channel):
    sender = Sender()
    channel.fill()
    waiting = [eventlet.spawn(sender.send, channel, name, 60.0) for name in (b"a", b"b", b"c")]
    eventually(lambda: channel.begun)
    channel.read()
    for one in waiting:
        one.wait()
    assert channel.sent == [b"a", b"b", b"c"]


def test_a_connection_that_is_lost_meanwhile_is_no_success(channel):
    sender = Sender()
    channel.fill()
    waiting = eventlet.spawn(sender.send, channel, WHOLE, 60.0)
    eventually(lambda: channel.begun)
    channel.ours.shutdown(socket.SHUT_RDWR)
    with pytest.raises(BrokerUnavailable):
        waiting.wait()
    channel.connection.transport.sock = None
    with pytest.raises(BrokerUnavailable):
        sender.send(channel, b"a", 1.0)
