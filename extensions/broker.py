"""Connections to RabbitMQ: how they are opened, closed and tried again."""

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import amqp
import eventlet
from amqp.exceptions import AMQPError
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


class SharedConnection(amqp.Connection):
    """A connection that one greenlet reads while others write.

    py-amqp's publish looks for a `connection.blocked` before it writes, by reading from the socket: in a second
    greenlet that steals frames from the reader. Without the capability it does not, and a blocked broker is noticed by
    deadlines.
    """

    negotiate_capabilities = {  # noqa: RUF012  (py-amqp's own way)
        "consumer_cancel_notify": True,
        "connection.blocked": False,
        "authentication_failure_close": True,
    }


def connect(heartbeat: int) -> amqp.Connection:
    """Return an open connection to the broker of the configuration."""
    address = parse_url(config["AMQP_URI"])
    connection = SharedConnection(
        host=f"{address['hostname']}:{address['port'] or 5672}",
        userid=address["userid"] or "guest",
        password=address["password"] or "guest",
        virtual_host=address["virtual_host"] or "/",
        heartbeat=heartbeat,
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        socket_settings=SOCKET_SETTINGS,
    )
    connection.connect()
    return connection


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
