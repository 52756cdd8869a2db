"""Connections to RabbitMQ: how they are opened, closed and tried again."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import amqp
import eventlet
from amqp.exceptions import AMQPError
from kombu.utils.url import parse_url
from nameko import config

from contracts.errors import ServiceUnavailable
from extensions.messaging.wire.connection import SharedConnection
from extensions.messaging.wire.properties import frame_handler
from extensions.runtime.addresses import amqp_uri, own_amqp_uri

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


def has_own_user(service: str) -> bool:
    """Tell whether the configuration gives `service` a user of its own, with the few permissions that it needs."""
    return bool(own_amqp_uri(config, service))


def connect(heartbeat: int, service: str = "") -> amqp.Connection:
    """Return an open connection to the broker, with the user of `service` where there is one, else with AMQP_URI's."""
    address = parse_url(amqp_uri(config, service))
    connection = SharedConnection(
        host=f"{address['hostname']}:{address['port'] or 5672}",
        userid=address["userid"] or "guest",
        password=address["password"] or "guest",
        virtual_host=address["virtual_host"] or "/",
        heartbeat=heartbeat,
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        socket_settings=SOCKET_SETTINGS,
        frame_handler=frame_handler,
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
