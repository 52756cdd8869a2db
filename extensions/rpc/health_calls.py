"""Calls of `health`, which never wait behind other calls of the service.

Each process receives them from a queue of its own, and has workers for them that no other call takes. `rpc-<service>`
also receives health calls. Processes without their own queue need this: processes of an earlier version, and processes
whose broker user may not declare the queue yet.
"""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import amqp

from extensions.messaging.topology import RPC_EXCHANGE, health_queue

HEALTH = "health"


class HealthCalls:
    """The subscription to the calls of `health`. `receive(channel, message)` gets each of them."""

    no_ack = False
    is_optional = True
    # One gateway makes one such call at a time.
    prefetch = 8

    def __init__(self, service: str, receive: Callable[[Any, amqp.Message], object]) -> None:
        self._service, self._receive = service, receive
        self.queue = ""
        self.channel: Any = None
        """The channel of the queue; None while there is none."""

    @property
    def routing_key(self) -> str:
        """The routing key of the calls."""
        return f"{self._service}.{HEALTH}"

    def on_connected(self, channel: amqp.Channel) -> None:
        """Declare the queue, which ends with the connection."""
        queue = health_queue(self._service, str(uuid4()))
        channel.queue_declare(queue, durable=False, exclusive=True, auto_delete=True)
        channel.queue_bind(queue, RPC_EXCHANGE, self.routing_key)
        self.queue, self.channel = queue, channel

    def on_disconnected(self) -> None:
        """Forget the channel."""
        self.channel = None

    def on_message(self, message: amqp.Message) -> None:
        """Hand one call over."""
        self._receive(self.channel, message)
