"""All exchanges, queues and bindings, derived from the contracts, and declared before anything is published.

    events (topic) --<event type>--> <service>.on_<event>      one quorum queue for each consumer of each event
    again (topic) --<queue>--> <service>.on_<event>            a redelivery to this one consumer
    again.<n>ms (topic) --> again.<n>ms --after n ms--> again  a redelivery after a delay
    dead-letters (direct) --<service>--> <service>.dead_letters    messages that exceeded their queue's delivery limit
    logged-events (topic) --<service>--> event-log             what services have published, for administrators
    nameko-rpc (topic) --<service>.*--> rpc-<service>          calls; and results, to an address without a dot
    nameko-rpc (topic) --<service>.health--> rpc-<service>-health-<id>    health checks, one queue for each process

The exchanges are topics so that RabbitMQ can check by routing key who may publish what (deploy/broker_users.py). No
service may write to the default exchange, from which every queue can be reached.

A service publishes an event only after the queues of all its consumers exist, so that no consumer misses it (hazard
H8 of docs/reliability.md). A broker with a user for each service loads the topology at its start
(deploy/definitions.py). A service that connects as its own user only checks that the topology exists. A service whose
user has all permissions declares it.
"""

from typing import Any

import amqp
from amqp.exceptions import NotFound
from nameko import config

from contracts.base import Event
from contracts.events import EVENTS, EXCHANGE, queue_name
from extensions.messaging.connection import BrokerUnavailable, has_own_user

AGAIN = "again"
RPC_EXCHANGE = "nameko-rpc"
DEAD_LETTERS = "dead-letters"
LOGGED_EVENTS, EVENT_LOG = "logged-events", "event-log"
# Not settings: the broker refuses to change the arguments of an existing queue. Old segments are deleted as a whole.
EVENT_LOG_BOUNDS = {
    "x-queue-type": "stream",
    "x-max-age": "7D",
    "x-max-length-bytes": 512 * 1024 * 1024,
    "x-stream-max-segment-size-bytes": 16 * 1024 * 1024,
}
# Not a setting: the broker refuses to change the limit of an existing queue.
DELIVERY_LIMIT = 20


class TopologyMissing(BrokerUnavailable):
    """The broker lacks an exchange or a queue that this service may not declare."""


class Plan:
    """Records the declarations of exchanges, queues and bindings instead of sending them; has methods of a channel."""

    def __init__(self) -> None:
        self.exchanges: dict[str, str] = {}
        self.queues: dict[str, dict[str, Any]] = {}
        self.bindings: list[tuple[str, str, str]] = []

    def exchange_declare(self, name: str, kind: str, **_durable: bool) -> None:
        """Record an exchange; all of ours are durable."""
        self.exchanges[name] = kind

    def queue_declare(self, name: str, *, arguments: dict[str, Any], **_durable: bool) -> None:
        """Record a queue; all that are declared here are durable."""
        self.queues[name] = arguments

    def queue_bind(self, queue: str, exchange: str, routing_key: str) -> None:
        """Record a binding."""
        self.bindings.append((queue, exchange, routing_key))


def ensure(connection: amqp.Connection, service: str) -> None:
    """Declare the topology; where `service` may not, check that it exists. Raises TopologyMissing."""
    if not has_own_user(service):
        declare(connection.channel())
        return
    plan, channel = Plan(), connection.channel()
    declare(plan)
    try:
        for exchange, kind in plan.exchanges.items():
            channel.exchange_declare(exchange, kind, passive=True)
        for queue in plan.queues:
            channel.queue_declare(queue, passive=True)
    except NotFound as error:
        raise TopologyMissing(f"The broker's definitions are not loaded, or are old: {error.reply_text}") from error
    channel.close()


def declare(channel: amqp.Channel | Plan) -> None:
    """Declare the whole topology. This is idempotent."""
    channel.exchange_declare(EXCHANGE, "topic", durable=True, auto_delete=False)
    channel.exchange_declare(RPC_EXCHANGE, "topic", durable=True, auto_delete=False)
    channel.exchange_declare(DEAD_LETTERS, "direct", durable=True, auto_delete=False)
    channel.exchange_declare(AGAIN, "topic", durable=True, auto_delete=False)
    channel.exchange_declare(LOGGED_EVENTS, "topic", durable=True, auto_delete=False)
    channel.queue_declare(EVENT_LOG, durable=True, auto_delete=False, arguments=dict(EVENT_LOG_BOUNDS))
    channel.queue_bind(EVENT_LOG, LOGGED_EVENTS, "#")
    for delay in retry_delays():
        _declare_retry(channel, delay)
    for service in sorted({consumer for event in EVENTS.values() for consumer in event.consumers}):
        declare_dead_letter_queue(channel, service)
    for event in EVENTS.values():
        for service in event.consumers:
            declare_event_queue(channel, service, event)


def declare_event_queue(channel: amqp.Channel | Plan, service: str, event: type[Event]) -> None:
    """Declare and bind the queue from which `service` consumes `event`."""
    queue = queue_name(service, event)
    # No length limit: a stopped consumer must not stop the saga. The broker's disk alarm is the bound.
    channel.queue_declare(
        queue,
        durable=True,
        auto_delete=False,
        arguments=_quorum(DEAD_LETTERS, service, {"x-delivery-limit": DELIVERY_LIMIT}),
    )
    channel.queue_bind(queue, EXCHANGE, event.event_type)
    channel.queue_bind(queue, AGAIN, queue)


def declare_dead_letter_queue(channel: amqp.Channel | Plan, service: str) -> None:
    """Declare the queue for messages that the broker dead-letters; the service moves them into its table."""
    channel.queue_declare(
        dead_letter_queue(service), durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"}
    )
    channel.queue_bind(dead_letter_queue(service), DEAD_LETTERS, service)


def dead_letter_queue(service: str) -> str:
    """Return the name of the queue for messages that the broker dead-letters for `service`."""
    return f"{service}.dead_letters"


def reply_queue(caller: str, address: str) -> str:
    """Return the name of the queue in which `caller` receives results, as Nameko's own client names it."""
    return f"rpc.reply-{caller}-{address}"


def health_queue(service: str, address: str) -> str:
    """Return the name of the queue in which one process of `service` receives health checks."""
    return f"rpc-{service}-health-{address}"


def retry_delays() -> list[int]:
    """Return the delays between attempts of a failing handler in milliseconds; their number bounds the attempts."""
    return [int(delay) for delay in config.get("RETRY_DELAYS_MS", [1000, 2000, 4000, 8000, 16000])]


def retry_exchange(delay: int) -> str:
    """Return the exchange that sends a message, after `delay` milliseconds, to the queue named by its routing key."""
    return f"{AGAIN}.{delay}ms"


def _declare_retry(channel: amqp.Channel | Plan, delay: int) -> None:
    name = retry_exchange(delay)
    channel.exchange_declare(name, "topic", durable=True, auto_delete=False)
    # Expired messages keep their routing key, which is the handler's queue.
    arguments = _quorum(AGAIN, None, {"x-message-ttl": delay})
    channel.queue_declare(name, durable=True, auto_delete=False, arguments=arguments)
    channel.queue_bind(name, name, "#")


def _quorum(dead_letter_exchange: str, routing_key: str | None, more: dict[str, Any]) -> dict[str, Any]:
    arguments = {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": dead_letter_exchange,
        # Dead-lettering must not lose the message either. At-least-once needs reject-publish.
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    if routing_key is not None:
        arguments["x-dead-letter-routing-key"] = routing_key
    return arguments | more
