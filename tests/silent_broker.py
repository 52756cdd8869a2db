"""A server that completes the AMQP handshake like RabbitMQ, and then reads everything and says nothing."""

import struct
from contextlib import contextmanager, suppress

import eventlet

START, TUNE, OPEN_OK = (10, 10), (10, 30), (10, 41)
START_OK, OPEN = (10, 11), (10, 40)


def long_string(value):
    return struct.pack(">I", len(value)) + value


def frame(method, arguments):
    payload = struct.pack(">HH", *method) + arguments
    return struct.pack(">BHI", 1, 0, len(payload)) + payload + b"\xce"


REPLIES = {
    START_OK: frame(TUNE, struct.pack(">HIH", 2047, 131072, 60)),
    OPEN: frame(OPEN_OK, b"\x00"),
}


class SilentBroker:
    """`uri` is its address, `handshakes` the number of connections that were opened."""

    def __init__(self):
        self._listening = eventlet.listen(("127.0.0.1", 0), reuse_port=False)
        self.uri = f"pyamqp://guest:guest@127.0.0.1:{self._listening.getsockname()[1]}//"
        self.handshakes = 0
        self._greenlets = [eventlet.spawn(self._accept)]

    def _accept(self):
        while True:
            client, _address = self._listening.accept()
            self._greenlets.append(eventlet.spawn(self._serve, client))

    def _serve(self, client):
        with suppress(OSError, struct.error):
            reader = client.makefile("rb")
            reader.read(8)
            client.sendall(frame(START, b"\x00\x09" + long_string(b"") + long_string(b"PLAIN") + long_string(b"en_US")))
            while True:
                kind, _channel, size = struct.unpack(">BHI", reader.read(7))
                payload = reader.read(size + 1)
                method = struct.unpack_from(">HH", payload) if kind == 1 else None
                client.sendall(REPLIES.get(method, b""))
                self.handshakes += method == OPEN

    def stop(self):
        for greenlet in self._greenlets:
            greenlet.kill()
        self._listening.close()


@contextmanager
def silent_broker():
    """Run one."""
    broker = SilentBroker()
    try:
        yield broker
    finally:
        broker.stop()
