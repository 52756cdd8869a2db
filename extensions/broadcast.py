"""Events that every process of a service hears, to keep what it remembers right; nothing is kept for one that is away.

For anything that must not be missed there is extensions.events.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any

import amqp
from nameko.exceptions import ContainerBeingKilled
from nameko.extensions import Entrypoint, register_entrypoint
from pydantic import ValidationError

from contracts.base import Event
from contracts.events import EXCHANGE, queue_name
from extensions.ids import new_id
from extensions.listener import Listener
from extensions.telemetry import start_trace

log = logging.getLogger(__name__)


class Broadcast(Entrypoint):
    """Consumes a queue of this process's own, which dies with its connection."""

    listener = Listener()
    no_ack = True
    prefetch = 0

    def __init__(self, event: type[Event]) -> None:
        super().__init__()
        self.event = event
        self.queue = ""

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

    def on_message(self, message: amqp.Message) -> None:
        """Start the method on one event; what is no such event is of no interest."""
        try:
            event = self.event.model_validate_json(message.body)
        except ValidationError as error:
            log.warning("%s got something else: %s", self.queue, error)
            return
        run = functools.partial(self._run, event, dict(message.headers or {}))
        self.container.spawn_managed_thread(run, identifier=self.queue)

    def on_disconnected(self) -> None:
        """There is nothing to forget."""

    def _run(self, event: Event, headers: dict[str, Any]) -> None:
        try:
            self.container.spawn_worker(self, (event, headers), {})
        except ContainerBeingKilled:
            return


def hears(event: type[Event]) -> Callable[..., Any]:
    """Decorate a method that every process of the service runs with every such event from now on."""

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def run(self: Any, received: Event, headers: dict[str, Any]) -> None:
            start_trace(headers, self.name)
            method(self, received)

        register_entrypoint(run, Broadcast(event))
        return run

    return decorate
