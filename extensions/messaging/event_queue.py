"""The queue of one event of a handler, and the messages that are delivered from it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import amqp

from contracts.base import Event, Received
from contracts.events import queue_name
from extensions.messaging import topology
from extensions.messaging.connection import has_own_user
from extensions.messaging.dead_letters import REQUEUES_HEADER
from extensions.messaging.inbound import require_event

# A suspect is a message that was delivered so often without an acknowledgement that it may crash its consumers.
SUSPECT_DELIVERIES = 3


class EventQueue:
    """The queue `<service>.on_<event>`, a subscription of the listener."""

    no_ack = False

    def __init__(
        self,
        service: str,
        event: type[Event],
        prefetch: int,
        on_delivery: Callable[["Delivery"], None],
        on_disconnected: Callable[[], None],
    ) -> None:
        self.service, self.event, self.prefetch = service, event, prefetch
        self.queue = queue_name(service, event)
        self.channel: Any = None
        self._on_delivery, self._on_disconnected = on_delivery, on_disconnected

    def on_connected(self, channel: amqp.Channel) -> None:
        """Declare the queue, if the service may. The declared topology has only consumers that the contracts list."""
        if not has_own_user(self.service):
            topology.declare_dead_letter_queue(channel, self.service)
            topology.declare_event_queue(channel, self.service, self.event)
        self.channel = channel

    def on_message(self, message: amqp.Message) -> None:
        """Pass one delivery to the handler. The prefetch limits how many are unacknowledged."""
        self._on_delivery(Delivery(self, self.channel, message))

    def on_disconnected(self) -> None:
        """Discard the channel, and have the handler discard its deliveries."""
        self.channel = None
        self._on_disconnected()


class Delivery(NamedTuple):
    """A message, the queue that it was delivered from, and the channel that it was received on."""

    source: EventQueue
    channel: amqp.Channel
    message: amqp.Message

    def decode(self) -> Received[Any]:
        """Return the event that the message holds. Raises Undecodable."""
        return require_event(self.message, self.source.event, self.source.service)

    @property
    def is_suspect(self) -> bool:
        """Tell whether the message may be one that crashes its consumers, see SUSPECT_DELIVERIES."""
        headers = self.message.headers or {}
        count = headers.get("x-delivery-count")
        return REQUEUES_HEADER in headers or (isinstance(count, int) and count >= SUSPECT_DELIVERIES)
