"""Checks whether the suite is running, for commands that need a running suite (`make shell`, `make demo`)."""

import os
from urllib.parse import urlsplit

import kombu
from amqp.exceptions import AMQPError
from kombu.exceptions import OperationalError

from deploy.config_file import ENV_FILE

CONNECT_SECONDS = 3.0


class NotRunning(Exception):
    """The suite cannot be reached. The message gives the reason and says what to do."""

    def __init__(self, amqp_uri: str) -> None:
        if ENV_FILE.exists() or "AMQP_URI" in os.environ:
            server = urlsplit(amqp_uri)
            reason = f"RabbitMQ at {server.hostname}:{server.port} accepts no connection"
        else:
            reason = "there is no file var/env"
        super().__init__(f"The suite is not running ({reason}): start it with `make run` in another terminal.")


def require_broker(amqp_uri: str) -> None:
    """Raise NotRunning unless RabbitMQ accepts a connection at this address."""
    try:
        with kombu.Connection(amqp_uri, connect_timeout=CONNECT_SECONDS) as connection:
            connection.connect()
    except (OSError, OperationalError, AMQPError):
        raise NotRunning(amqp_uri) from None
