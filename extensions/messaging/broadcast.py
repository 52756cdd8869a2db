"""Events that every process of a service receives, to keep its in-memory data current.

A process that is down misses them. For events that must not be missed, use extensions.messaging.event_handler.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any

import amqp
import eventlet
from eventlet.event import Event as Signal
from nameko.exceptions import ContainerBeingKilled
from nameko.extensions import Entrypoint, register_entrypoint
from pydantic import ValidationError

from contracts.base import Event
from contracts.errors import ServiceUnavailable
from contracts.events import EXCHANGE, queue_name
from contracts.ids import new_id
from extensions.messaging.connection import ack
from extensions.messaging.inbound import Undecodable, require_routing
from extensions.messaging.listener import Listener
from extensions.observability.traces import start_trace
from extensions.runtime.interruptions import INTERRUPTIONS
from extensions.runtime.progress import loops_of

log = logging.getLogger(__name__)

METHOD_SECONDS = 10.0


class Broadcast(Entrypoint):
    """Consumes an exclusive queue of this process, which the broker deletes with the connection."""

    listener = Listener()
    no_ack = False
    # One event at a time: the others wait in the queue and occupy no workers.
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
        """Unsubscribe."""
        self.listener.unsubscribe(self)

    def on_connected(self, channel: amqp.Channel) -> None:
        """Declare the queue."""
        channel.queue_declare(self.queue, durable=False, exclusive=True, auto_delete=True)
        channel.queue_bind(self.queue, EXCHANGE, self.event.event_type)
        self._channel = channel

    def on_message(self, message: amqp.Message) -> None:
        """Run the method on one event. A message that is not such an event is acknowledged and ignored."""
        try:
            require_routing(message, self.event.event_type)
            event = self.event.model_validate_json(message.body)
        except (ValidationError, Undecodable) as error:
            log.warning("%s: ignoring an invalid message: %s", self.queue, error)
            ack(self._channel, message.delivery_tag)
            return
        run = functools.partial(self._run, self._channel, message, event)
        self.container.spawn_managed_thread(run, identifier=self.queue)

    def on_disconnected(self) -> None:
        """Discard the channel; the broker has deleted the queue."""
        self._channel = None

    def _run(self, channel: amqp.Channel, message: amqp.Message, event: Event) -> None:
        try:
            with loops_of(self.container).running(f"broadcast.{self.method_name}"):
                while not self._is_handled(message, event):
                    log.warning("%s waits for a free worker", self.queue)
        except ContainerBeingKilled:
            return
        ack(channel, message.delivery_tag)

    def _is_handled(self, message: amqp.Message, event: Event) -> bool:
        """Run the method. Returns False if no worker was free in time. Raises ContainerBeingKilled."""
        finished = Signal()

        def handle_result(_worker_ctx: Any, result: Any, exc_info: Any) -> tuple[Any, Any]:
            finished.send()
            return result, exc_info

        try:
            self.container.spawn_worker(self, (event, dict(message.headers or {})), {}, handle_result=handle_result)
        except ServiceUnavailable:
            return False
        finished.wait()
        return True


def on_broadcast(event: type[Event]) -> Callable[..., Any]:
    """Decorate a method that every process of the service calls with every such event published while it runs."""

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def run(self: Any, received: Event, headers: dict[str, Any]) -> None:
            start_trace(headers, self.name)
            try:
                with eventlet.Timeout(METHOD_SECONDS):  # the next one waits for it
                    method(self, received)
            except (Exception, *INTERRUPTIONS):
                log.exception("%s failed; its data is stale until the next refresh", method.__name__)

        register_entrypoint(run, Broadcast(event))
        return run

    return decorate
