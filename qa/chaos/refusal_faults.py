"""Events that the broker refuses: one event of a producer is forbidden, or no queue takes it.

It must wait by itself: all other events leave, and no order is decided later. The events here decide no order, and each
has a single consumer, so that an event is either taken by all of its consumers or returned.
"""

import random
import re
from contextlib import contextmanager

from amqp.exceptions import AMQPError

from contracts.events import EXCHANGE, queue_name
from contracts.inventory import StockCommitted
from contracts.orders import OrderShipped
from contracts.payments import PaymentCaptured
from qa.chaos.broker_control import TRIES, control, topic_permissions, undo
from qa.chaos.duplicate_event_faults import RECORDER, channel_of
from qa.chaos.proxy import BROKER
from qa.chaos.slow_faults import NOTHING, Effect, SlowFault

CHOICE = {event.producer: event for event in (StockCommitted, PaymentCaptured, OrderShipped)}
WAITING = "SELECT count(*) FROM outbox WHERE event_type = %s"
NOBODY = frozenset()


def forbidden(sandbox, chance: random.Random) -> Effect:
    """The producer may not publish one of its events, as before the broker has the definitions of a new version."""
    service = sandbox.next_of("forbidden", list(CHOICE), chance)
    rabbitmq, key = sandbox.servers.rabbitmq, CHOICE[service].event_type
    write, read = topic_permissions(rabbitmq, service, EXCHANGE)
    set_permissions = ("set_topic_permissions", "-p", "/", service, EXCHANGE)
    without = f"^(?!{re.escape(key)}$){write.removeprefix('^')}"

    @contextmanager
    def broken():
        try:
            control(rabbitmq, *set_permissions, without, read)
            _reconnect(sandbox, service)
            yield lambda: _waiting(sandbox, service, key)
        finally:
            undo(rabbitmq, *set_permissions, write, read)

    return Effect(f"{service} may not publish {key}", NOBODY, broken, exclusive=(f"broker user {service}",))


def unroutable(sandbox, chance: random.Random) -> Effect:
    """The queue of an event's only consumer is not bound."""
    service = sandbox.next_of("unroutable", list(CHOICE), chance)
    key, queue = CHOICE[service].event_type, queue_name(CHOICE[service].consumers[0], CHOICE[service])

    @contextmanager
    def broken():
        try:
            with channel_of(sandbox) as channel:  # the recorder takes every event
                channel.queue_unbind(RECORDER, EXCHANGE, "#")
                channel.queue_unbind(queue, EXCHANGE, key)
            yield lambda: _waiting(sandbox, service, key)
        finally:
            _bind_again(sandbox, queue, key)

    return Effect(f"no queue takes {key}", NOBODY, broken, exclusive=("bindings",))


def _reconnect(sandbox, service):
    """Break the service's connections: the broker checks a permission once for each channel."""
    reset = Effect(f"{service} reconnects", frozenset({service}), broken=lambda: None)
    with sandbox.watched(reset, reset.what), sandbox.proxies.fault([sandbox.proxies.link(service, BROKER)], "refuse"):
        pass


def _waiting(sandbox, service, key):
    """How many events are held back."""
    with sandbox.superuser(service) as connection, connection.cursor() as cursor:
        cursor.execute(WAITING, [key])
        count = cursor.fetchone()[0]
    return f"{count} of them waited at its end" if count else ""


def _bind_again(sandbox, queue, key):
    for tries_left in reversed(range(TRIES)):
        try:
            with channel_of(sandbox) as channel:
                channel.queue_bind(queue, EXCHANGE, key)
                channel.queue_bind(RECORDER, EXCHANGE, "#")
        except (OSError, AMQPError):
            if not tries_left:
                raise
        else:
            return


FAULTS = [
    SlowFault("the broker refuses one kind of event", forbidden, NOTHING),
    SlowFault("no queue takes one kind of event", unroutable, NOTHING),
]
