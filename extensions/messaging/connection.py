"""Connections to RabbitMQ: opening, closing, acknowledging, and the errors of a lost one."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import amqp
import eventlet
from amqp.exceptions import AMQPError
from kombu.utils.url import parse_url
from nameko import config

from contracts.errors import ServiceUnavailable
from extensions.messaging.wire.connection import connection_class
from extensions.runtime.addresses import amqp_uri, own_amqp_uri

CONNECT_TIMEOUT_SECONDS = 5
# TCP keepalive and TCP_USER_TIMEOUT (in milliseconds) find a dead peer as well, not only heartbeats.
SOCKET_SETTINGS = {
    socket.TCP_USER_TIMEOUT: 15_000,
    socket.TCP_KEEPIDLE: 10,
    socket.TCP_KEEPINTVL: 5,
    socket.TCP_KEEPCNT: 3,
}

CONNECTION_ERRORS = (AMQPError, OSError, EOFError)


class BrokerUnavailable(ServiceUnavailable):
    """RabbitMQ cannot be reached or did not confirm. Whether anything was sent is unknown."""

    code, status, detail = "SERVICE_UNAVAILABLE", 503, "The message broker is unavailable. Try again shortly."

    def __init__(self, detail: str | None = None, retry_after: int | None = 1) -> None:
        super().__init__(detail, retry_after=retry_after)


class BrokerBlocked(BrokerUnavailable):
    """RabbitMQ is short of memory or disk and takes no messages. Nothing was sent."""

    detail = "The message broker takes no messages at the moment. Try again shortly."


def has_own_user(service: str) -> bool:
    """Tell whether the configuration gives `service` its own RabbitMQ user, which has only the permissions it needs."""
    return bool(own_amqp_uri(config, service))


def connect(
    heartbeat: int,
    service: str = "",
    *,
    purpose: str = "",
    on_blocked: Callable[[str], None] | None = None,
    on_unblocked: Callable[[], None] | None = None,
) -> amqp.Connection:
    """Return an open connection to the broker.

    It uses the RabbitMQ user of `service` if it has one, else the user in AMQP_URI. `heartbeat` is in seconds, 0 for
    none. The broker lists the connection under the name of the service and the `purpose`. `on_blocked` and
    `on_unblocked` are called by what reads the connection, when an alarm of the broker begins to concern it, and at its
    end. Raises CONNECTION_ERRORS.
    """
    address = parse_url(amqp_uri(config, service))
    connection = connection_class(config)(
        host=f"{address['hostname']}:{address['port'] or 5672}",
        userid=address["userid"] or "guest",
        password=address["password"] or "guest",
        virtual_host=address["virtual_host"] or "/",
        heartbeat=heartbeat,
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        socket_settings=SOCKET_SETTINGS,
        client_properties={"connection_name": f"{service} {purpose}".strip()},
        on_blocked=on_blocked,
        on_unblocked=on_unblocked,
    )
    connection.connect()
    # The broker knows by now that we understand `connection.blocked`. py-amqp must not: its basic_publish would read
    # from the socket, and take frames from the greenlet that reads.
    connection.client_properties.get("capabilities", {}).pop("connection.blocked", None)
    return connection


def close_quietly(connection: amqp.Connection) -> None:
    """Close a connection that may be broken already. Waits two seconds at most and raises nothing."""
    with suppress(Exception), eventlet.Timeout(2, False):
        connection.close()
    with suppress(Exception):
        connection.collect()


def ack(channel: amqp.Channel, tag: int, *, multiple: bool = False) -> None:
    """Acknowledge a message. On a lost connection this does nothing: the broker delivers the message again."""
    with suppress(*CONNECTION_ERRORS, AttributeError):
        channel.basic_ack(tag, multiple=multiple)


@contextmanager
def broker_errors() -> Iterator[None]:
    """Turn a connection failure into BrokerUnavailable."""
    try:
        yield
    except (*CONNECTION_ERRORS, AttributeError) as error:
        raise BrokerUnavailable from error
