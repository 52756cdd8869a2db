"""How many messages wait in the broker: in the queues of the handlers, for a retry, or as dead letters of its own."""

from typing import Any

import amqp
import eventlet
from amqp.exceptions import NotFound
from nameko.extensions import DependencyProvider

from contracts.events import EVENTS, queue_name
from extensions.messaging import topology
from extensions.messaging.connection import BrokerUnavailable, broker_errors, close_quietly, connect

TIMEOUT_SECONDS = 4


class QueueDepths:
    """What a worker gets as `self.queues`."""

    def __init__(self, service: str = "") -> None:
        self._service = service

    def waiting(self) -> dict[str, int]:
        """Return the number of messages that are ready in each queue that has any.

        What a consumer has in its hands is not among them: the broker does not tell. Raises BrokerUnavailable.
        """
        timeout = eventlet.Timeout(TIMEOUT_SECONDS, BrokerUnavailable())
        connection = None
        try:
            with broker_errors():
                connection = connect(heartbeat=0, service=self._service)
                depths = {queue: _depth(connection, queue) for queue in known_queues()}
        finally:
            timeout.cancel()
            if connection is not None:
                close_quietly(connection)
        return {queue: depth for queue, depth in depths.items() if depth}


class Queues(DependencyProvider):
    """Gives a service the depths of the queues: `queues = Queues()`."""

    def get_dependency(self, worker_ctx: Any) -> QueueDepths:
        """Return what asks; it has no state."""
        return QueueDepths(worker_ctx.service_name)


def known_queues() -> list[str]:
    """Return every queue through which an event can go."""
    consumers = {service for event in EVENTS.values() for service in event.consumers}
    return [
        *(queue_name(service, event) for event in EVENTS.values() for service in event.consumers),
        *(topology.retry_exchange(delay) for delay in topology.retry_delays()),
        *(topology.dead_letter_queue(service) for service in sorted(consumers)),
    ]


def _depth(connection: amqp.Connection, queue: str) -> int:
    channel = connection.channel()
    try:
        depth = channel.queue_declare(queue, passive=True).message_count
    except NotFound:  # it closes the channel
        return 0
    channel.close()
    return int(depth)
