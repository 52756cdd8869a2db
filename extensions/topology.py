"""Everything that exists in the broker, derived from the contracts and declared before anything is published.

    events (topic) --<event type>--> <service>.on_<event>      one quorum queue for each consumer of each event
    retry.<n>ms (fanout) --> retry.<n>ms --after n ms--> back to the handler's queue
    dead-letters (direct) --<service>--> <service>.dead_letters    deliveries that killed their consumer too often

A service publishes an event only after the queues of all its consumers exist, so that none can miss it (H8).
"""

from typing import Any

import amqp
from nameko import config

from contracts.base import Event
from contracts.events import EVENTS, EXCHANGE, queue_name

RPC_EXCHANGE = "nameko-rpc"
DEAD_LETTERS = "dead-letters"
# No setting: the broker refuses another limit for a queue that exists.
DELIVERY_LIMIT = 20


def declare(channel: amqp.Channel) -> None:
    """Declare all of it. Repeating it changes nothing."""
    channel.exchange_declare(EXCHANGE, "topic", durable=True, auto_delete=False)
    channel.exchange_declare(RPC_EXCHANGE, "topic", durable=True, auto_delete=False)
    channel.exchange_declare(DEAD_LETTERS, "direct", durable=True, auto_delete=False)
    for delay in retry_delays():
        _declare_retry(channel, delay)
    for service in sorted({consumer for event in EVENTS.values() for consumer in event.consumers}):
        declare_dead_letter_queue(channel, service)
    for event in EVENTS.values():
        for service in event.consumers:
            declare_event_queue(channel, service, event)


def declare_event_queue(channel: amqp.Channel, service: str, event: type[Event]) -> None:
    """Declare the queue in which `service` gets `event`, and bind it."""
    queue = queue_name(service, event)
    # No length limit: a stopped consumer must not stop the saga; the broker's disk alarm is the bound.
    channel.queue_declare(
        queue,
        durable=True,
        auto_delete=False,
        arguments=_quorum(DEAD_LETTERS, service, {"x-delivery-limit": DELIVERY_LIMIT}),
    )
    channel.queue_bind(queue, EXCHANGE, event.event_type)


def declare_dead_letter_queue(channel: amqp.Channel, service: str) -> None:
    """Declare the queue for what the broker itself gives up on; the service moves it into its dead_letters table."""
    channel.queue_declare(
        dead_letter_queue(service), durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"}
    )
    channel.queue_bind(dead_letter_queue(service), DEAD_LETTERS, service)


def dead_letter_queue(service: str) -> str:
    """Return the name of that queue."""
    return f"{service}.dead_letters"


def retry_delays() -> list[int]:
    """Return the pauses between tries of a failing handler, in milliseconds; their number bounds the tries."""
    return [int(delay) for delay in config.get("RETRY_DELAYS_MS", [1000, 2000, 4000, 8000, 16000])]


def retry_exchange(delay: int) -> str:
    """Return the exchange whose messages come back to the queue in their routing key after `delay` milliseconds."""
    return f"retry.{delay}ms"


def _declare_retry(channel: amqp.Channel, delay: int) -> None:
    name = retry_exchange(delay)
    channel.exchange_declare(name, "fanout", durable=True, auto_delete=False)
    # Expired messages go to the default exchange under their own routing key: the handler's queue.
    channel.queue_declare(name, durable=True, auto_delete=False, arguments=_quorum("", None, {"x-message-ttl": delay}))
    channel.queue_bind(name, name, "")


def _quorum(dead_letter_exchange: str, routing_key: str | None, more: dict[str, Any]) -> dict[str, Any]:
    arguments = {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": dead_letter_exchange,
        # The hop to the next queue must not lose the message either; this needs reject-publish.
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    if routing_key is not None:
        arguments["x-dead-letter-routing-key"] = routing_key
    return arguments | more
