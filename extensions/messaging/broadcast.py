"""Events that every process of a service hears, to keep what it remembers right; nothing is kept for one that is away.

For anything that must not be missed there is extensions.messaging.event_handler.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any

import amqp
from eventlet.event import Event as Signal
from nameko.exceptions import ContainerBeingKilled
from nameko.extensions import Entrypoint, register_entrypoint
from pydantic import ValidationError

from contracts.base import Event
from contracts.events import EXCHANGE, queue_name
from contracts.ids import new_id
from extensions.messaging.connection import ack
from extensions.messaging.inbound import Undecodable, require_routing
from extensions.messaging.listener import Listener
from extensions.observability.traces import start_trace
from extensions.runtime.interruptions import INTERRUPTIONS

log = logging.getLogger(__name__)


class Broadcast(Entrypoint):
    """Consumes a queue of this process's own, which dies with its connection."""

    listener = Listener()
    no_ack = False
    # One after the other: the rest waits in the queue, and no more workers are taken than are spare.
    prefetch = 1

    def __init__(self, event: type[Event]) -> None:
        super().__init__()
        self.event = event
        self.queue = ""
        self._channel: Any = None

    def setup(self) -> None:
        """Subscribe."""
        self.queue = f"{queue_name(self.container.service_name, self.event)}.{new_id()}"
        self.listener.subscribe(self)

    def stop(self) -> None:
        """Hear no more."""
        self.listener.unsubscribe(self)

    def on_connected(self, channel: amqp.Channel) -> None:
        """Declare the queue."""
        channel.queue_declare(self.queue, durable=False, exclusive=True, auto_delete=True)
        channel.queue_bind(self.queue, EXCHANGE, self.event.event_type)
        self._channel = channel

    def on_message(self, message: amqp.Message) -> None:
        """Run the method on one event; what is no such event is of no interest."""
        try:
            require_routing(message, self.event.event_type)
            event = self.event.model_validate_json(message.body)
        except (ValidationError, Undecodable) as error:
            log.warning("%s got something else: %s", self.queue, error)
            ack(self._channel, message.delivery_tag)
            return
        run = functools.partial(self._run, self._channel, message, event)
        self.container.spawn_managed_thread(run, identifier=self.queue)

    def on_disconnected(self) -> None:
        """Forget the channel: the queue has gone with it."""
        self._channel = None

    def _run(self, channel: amqp.Channel, message: amqp.Message, event: Event) -> None:
        finished = Signal()

        def handle_result(_worker_ctx: Any, result: Any, exc_info: Any) -> tuple[Any, Any]:
            finished.send()
            return result, exc_info

        try:
            self.container.spawn_worker(self, (event, dict(message.headers or {})), {}, handle_result=handle_result)
        except ContainerBeingKilled:
            return
        finished.wait()
        ack(channel, message.delivery_tag)


def on_broadcast(event: type[Event]) -> Callable[..., Any]:
    """Decorate a method that every process of the service runs with every such event from now on."""

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def run(self: Any, received: Event, headers: dict[str, Any]) -> None:
            start_trace(headers, self.name)
            try:
                method(self, received)
            except (Exception, *INTERRUPTIONS):
                log.exception("%s failed; what it would have remembered is caught up with later", method.__name__)

        register_entrypoint(run, Broadcast(event))
        return run

    return decorate
