"""The number of messages in the queues of event handlers, in retry queues, and in dead-letter queues."""

from typing import Any

import amqp
import eventlet
from amqp.exceptions import NotFound
from nameko.extensions import DependencyProvider

from contracts.events import EVENTS, queue_name
from extensions.messaging import topology
from extensions.messaging.connection import BrokerUnavailable, broker_errors, close_quietly, connect

TIMEOUT_SECONDS = 15


class QueueDepths:
    """The dependency `self.queues` of a worker."""

    def __init__(self, service: str = "") -> None:
        self._service = service

    def waiting(self) -> dict[str, int]:
        """Return the number of ready messages of each queue that is not empty.

        Messages that a consumer holds unacknowledged are not counted. Raises BrokerUnavailable.
        """
        timeout = eventlet.Timeout(TIMEOUT_SECONDS, BrokerUnavailable())
        connection = None
        try:
            with broker_errors():
                connection = connect(heartbeat=0, service=self._service)
                depths = _depths(connection, known_queues())
        finally:
            timeout.cancel()
            if connection is not None:
                close_quietly(connection)
        return {queue: depth for queue, depth in depths.items() if depth}


class QueueDepthsProvider(DependencyProvider):
    """Gives a service the depths of the queues: `queues = QueueDepthsProvider()`."""

    def get_dependency(self, worker_ctx: Any) -> QueueDepths:
        """Return the depths; nothing is read before waiting() is called."""
        return QueueDepths(worker_ctx.service_name)


def known_queues() -> list[str]:
    """Return the names of all queues that can hold an event."""
    consumers = {service for event in EVENTS.values() for service in event.consumers}
    return [
        *(queue_name(service, event) for event in EVENTS.values() for service in event.consumers),
        *(topology.retry_exchange(delay) for delay in topology.retry_delays()),
        *(topology.dead_letter_queue(service) for service in sorted(consumers)),
    ]


def _depths(connection: amqp.Connection, queues: list[str]) -> dict[str, int]:
    depths = {}
    channel = None
    for queue in queues:
        channel = channel or connection.channel()
        try:
            depths[queue] = int(channel.queue_declare(queue, passive=True).message_count)
        except NotFound:  # the broker has closed the channel
            depths[queue], channel = 0, None
    return depths
