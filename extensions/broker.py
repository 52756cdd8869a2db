"""Connections to RabbitMQ: how they are opened, closed and tried again."""

import random
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import amqp
import eventlet
from amqp import method_framing
from amqp.exceptions import AMQPError, RecoverableConnectionError, UnexpectedFrame
from amqp.serialization import decode_properties_basic, dumps
from amqp.transport import TCPTransport
from eventlet.greenio import GreenSocket
from eventlet.hubs import trampoline
from eventlet.semaphore import Semaphore
from kombu.utils.url import parse_url
from nameko import config

from contracts.errors import ServiceUnavailable
from extensions import frames
from extensions.frames import DELIVER, END, FRAME, FRAME_OVERHEAD

CONNECT_TIMEOUT_SECONDS = 5
# A zombie or a dead peer is noticed by TCP as well, not only by heartbeats.
SOCKET_SETTINGS = {
    socket.TCP_USER_TIMEOUT: 15_000,
    socket.TCP_KEEPIDLE: 10,
    socket.TCP_KEEPINTVL: 5,
    socket.TCP_KEEPCNT: 3,
}

READ_BYTES = 64 * 1024

CONNECTION_ERRORS = (AMQPError, OSError, EOFError)

# In the place of properties that cannot be read: says why.
UNREADABLE_HEADER = "x-unreadable"

# AMQP 0-9-1, 4.2.6: a frame that is a message's header, where its properties begin, and the flag of "only headers".
CONTENT_HEADER = 2
PROPERTIES_AT = 12
HEADERS_ONLY = b"\x20\x00"


class BrokerUnavailable(ServiceUnavailable):
    """RabbitMQ cannot be reached, or did not confirm; nothing is known to have been sent."""

    code, status, detail = "SERVICE_UNAVAILABLE", 503, "The message broker is unavailable. Try again shortly."


class Backoff:
    """Growing, jittered pauses: `first` seconds doubling up to `longest`, each shortened by up to half."""

    def __init__(self, first: float = 0.25, longest: float = 10.0) -> None:
        self.first, self.longest, self._next = first, longest, first

    def reset(self) -> None:
        """Begin again with the shortest pause."""
        self._next = self.first

    def next_pause(self) -> float:
        """Return the seconds to wait before the next try."""
        pause, self._next = self._next, min(self._next * 2, self.longest)
        return pause * random.uniform(0.5, 1.0)  # noqa: S311  (jitter needs no cryptography)


class BytesChannel(amqp.Channel):
    """A channel whose bodies stay bytes.

    py-amqp would decode them by whatever codec the sender names, and with some (punycode) that takes for ever.
    """

    def __init__(self, connection: amqp.Connection, channel_id: int | None = None, on_open: Any = None) -> None:
        super().__init__(connection, channel_id, auto_decode=False, on_open=on_open)

    def dispatch_method(self, method_sig: tuple[int, int], payload: bytes, content: Any) -> None:
        """Hand on what came; a delivery, which is nearly all of it, without looking up what its fields are."""
        if method_sig == DELIVER and not self.is_closing:
            self._on_basic_deliver(*frames.delivery(payload), content)
        else:
            super().dispatch_method(method_sig, payload, content)

    def send(self, frames: bytes) -> None:
        """Write finished frames (frames.py) in one piece. Raises CONNECTION_ERRORS or AttributeError."""
        connection = self.connection
        if connection is None:
            raise RecoverableConnectionError("the channel is closed")
        connection.transport.write(frames)
        connection.bytes_sent += 1

    def acknowledgement(self, tag: int) -> bytes:
        """Return the frame that acknowledges one message; see send()."""
        return frames.acknowledgement(self.channel_id, tag)

    def message(self, body: str, exchange: str, routing_key: str, **properties: Any) -> bytes:
        """Return the frames of a transient JSON message, see frames.message() and send()."""
        return frames.message(self.channel_id, self.connection.frame_max, body, exchange, routing_key, **properties)


class BufferedTransport(TCPTransport):
    """Reads as much as there is, and not each frame in three pieces; what greenlets write does not mix."""

    def __init__(self, host: str, **options: Any) -> None:
        super().__init__(host, **options)
        self._data, self._at = b"", 0
        self._is_empty = False
        self._turn = Semaphore(1)

    def _setup_transport(self) -> None:
        self._write = self._write_whole

    def read_frame(self, *_unpack: Any) -> tuple[int, int, bytes]:
        """Return the type, the channel and the payload of the next frame. What came of it stays if there is no rest."""
        while True:
            data, at = self._data, self._at
            if len(data) - at >= FRAME_OVERHEAD:
                kind, channel, size = FRAME.unpack_from(data, at)
                begin = at + FRAME.size
                end = begin + size
                if len(data) > end:
                    if data[end] != END[0]:
                        raise UnexpectedFrame(f"a frame ends with {data[end]:#04x}")
                    self._at = end + 1
                    return kind, channel, data[begin:end]
            self._fill()

    def _fill(self) -> None:
        sock = self._open_socket()
        try:
            if self._is_empty and isinstance(sock, GreenSocket) and sock.gettimeout() is None:
                trampoline(sock, read=True)  # it was read to its end: no need to be told so
            more = sock.recv(READ_BYTES)
        except TimeoutError:
            raise
        except OSError:
            self.connected = False
            raise
        if not more:
            self.connected = False
            raise OSError("Server unexpectedly closed connection")
        self._is_empty = len(more) < READ_BYTES
        self._data = self._data[self._at :] + more
        self._at = 0

    def _write_whole(self, data: bytes) -> None:
        with self._turn:
            sock = self._open_socket()
            try:
                sock.sendall(data)
            except BaseException:
                # Part of it may be out, and what came next would be read as the rest of it: nothing comes next.
                self.connected = False
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                raise

    def _open_socket(self) -> Any:
        if self.sock is None:
            raise OSError("the connection was closed")
        return self.sock


class SharedConnection(amqp.Connection):
    """A connection that one greenlet reads while others write.

    py-amqp's publish looks for a `connection.blocked` before it writes, by reading from the socket: in a second
    greenlet that steals frames from the reader. Without the capability it does not, and a blocked broker is noticed by
    deadlines.
    """

    Channel = BytesChannel
    negotiate_capabilities = {  # noqa: RUF012  (py-amqp's own way)
        "consumer_cancel_notify": True,
        "connection.blocked": False,
        "authentication_failure_close": True,
    }

    def Transport(self, host: str, connect_timeout: float, _ssl: bool = False, *_timeouts: Any, **options: Any) -> Any:  # noqa: N802
        """Return what py-amqp reads from and writes to."""
        return BufferedTransport(host, connect_timeout=connect_timeout, **options)

    def blocking_read(self, timeout: float | None = None) -> Any:
        """Read one frame and hand it on; without a deadline there is nothing to set and to set back."""
        if timeout is None:
            return self.on_inbound_frame(self.transport.read_frame())
        return super().blocking_read(timeout)


def has_own_user(service: str) -> bool:
    """Tell whether the configuration gives `service` a user of its own, with the few permissions that it needs."""
    return bool((config.get("AMQP_URIS") or {}).get(service))


def connect(heartbeat: int, service: str = "") -> amqp.Connection:
    """Return an open connection to the broker, with the user of `service` where there is one, else with AMQP_URI's."""
    address = parse_url(config["AMQP_URIS"][service] if has_own_user(service) else config["AMQP_URI"])
    connection = SharedConnection(
        host=f"{address['hostname']}:{address['port'] or 5672}",
        userid=address["userid"] or "guest",
        password=address["password"] or "guest",
        virtual_host=address["virtual_host"] or "/",
        heartbeat=heartbeat,
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        socket_settings=SOCKET_SETTINGS,
        frame_handler=_patient_frame_handler,
    )
    connection.connect()
    return connection


def _patient_frame_handler(connection: amqp.Connection, callback: Callable[..., Any]) -> Callable[[Any], bool]:
    """Return py-amqp's reader of frames, but for messages whose properties it cannot read: they come with none.

    Nested too deep, no UTF-8, a time after the year 9999: the error would end the connection or the process, and the
    broker would deliver the message again to the next one.
    """
    on_frame = method_framing.frame_handler(connection, callback)

    def on_frame_or_without_properties(frame: tuple[int, int, bytes]) -> bool:
        kind, channel, payload = frame
        try:
            return on_frame(frame)
        except Exception as error:
            if kind != CONTENT_HEADER or _can_be_read(payload):
                raise
            reason = f"its properties cannot be read ({type(error).__name__})"
            without = bytes(payload[:PROPERTIES_AT]) + HEADERS_ONLY + dumps("F", [{UNREADABLE_HEADER: reason}])
            return on_frame((kind, channel, without))

    return on_frame_or_without_properties


def _can_be_read(content_header: bytes) -> bool:
    try:
        decode_properties_basic(content_header, PROPERTIES_AT)
    except Exception:  # noqa: BLE001  (py-amqp promises nothing here)
        return False
    return True


def close_quietly(connection: amqp.Connection) -> None:
    """Close a connection that may be broken already, waiting two seconds at most."""
    with suppress(Exception), eventlet.Timeout(2, False):
        connection.close()
    with suppress(Exception):
        connection.collect()


def ack(channel: amqp.Channel, tag: int, *, multiple: bool = False) -> None:
    """Acknowledge; on a lost connection there is nothing to do, the message will come again."""
    with suppress(*CONNECTION_ERRORS, AttributeError):
        channel.basic_ack(tag, multiple=multiple)


@contextmanager
def broker_errors() -> Iterator[None]:
    """Turn a connection failure into BrokerUnavailable."""
    try:
        yield
    except (*CONNECTION_ERRORS, AttributeError) as error:
        raise BrokerUnavailable from error
