"""Connections to RabbitMQ: how they are opened, closed and tried again."""

import random
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import amqp
import eventlet
from amqp import method_framing
from amqp.exceptions import AMQPError
from amqp.serialization import decode_properties_basic, dumps
from kombu.utils.url import parse_url
from nameko import config

from contracts.errors import ServiceUnavailable

CONNECT_TIMEOUT_SECONDS = 5
# A zombie or a dead peer is noticed by TCP as well, not only by heartbeats.
SOCKET_SETTINGS = {
    socket.TCP_USER_TIMEOUT: 15_000,
    socket.TCP_KEEPIDLE: 10,
    socket.TCP_KEEPINTVL: 5,
    socket.TCP_KEEPCNT: 3,
}

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
