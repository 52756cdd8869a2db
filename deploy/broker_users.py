"""The broker's users and their permissions, derived from the contracts.

A service may consume its own queues, publish the events that it produces, log them under its own name, call the methods
that contracts/call_permissions.py names, send replies, and retry messages through its own queues. It may declare only
queues that end with its process: for calls, for replies, and for broadcasts. All other queues and exchanges are in the
definitions. Only the gateway reads the event log.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from contracts.call_permissions import CALLS, bus_services
from contracts.events import EVENTS, EXCHANGE, queue_name
from contracts.services import GATEWAY
from deploy.server_users import OPERATOR
from extensions.messaging import topology

UUID = "[0-9a-f-]{36}"
REPLY_KEY = "[^.#*]+"  # the routing key of a reply has no dot; the routing key of a call has one
NOTHING, EVERYTHING = "^$", ".*"
PUBLISHING = [EXCHANGE, topology.LOGGED_EVENTS]
"""The exchanges to which a producer of events writes."""


@dataclass(frozen=True)
class User:
    """A user of the broker. The permissions are regular expressions, as in RabbitMQ."""

    name: str
    configure: str
    write: str
    read: str
    topics: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Exchange -> (allowed routing keys for publishing, allowed routing keys for binding queues)."""
    tags: str = ""


def users(administrator: str, delays: Iterable[int]) -> list[User]:
    """Return all users of the suite; `delays` are the retry delays in ms."""
    services = [_service(service, list(delays)) for service in bus_services()]
    return [*services, _operator(), User(administrator, EVERYTHING, EVERYTHING, EVERYTHING, tags="administrator")]


def _service(name: str, delays: list[int]) -> User:
    produced = [event.event_type for event in EVENTS.values() if event.producer == name]
    consumed = [queue_name(name, event) for event in EVENTS.values() if name in event.consumers]
    broadcasts = [event for event in EVENTS.values() if name in event.listeners]
    own = [
        re.escape(f"rpc-{name}"),
        re.escape(topology.reply_queue(name, "")) + UUID,
        re.escape(topology.health_queue(name, "")) + UUID,
        *(re.escape(queue_name(name, event) + ".") + UUID for event in broadcasts),
    ]
    exchanges = [topology.AGAIN, *map(topology.retry_exchange, delays)] if consumed else []
    calls = [re.escape(call).replace(r"\*", "[a-z_]+") for call in (f"{name}.*", *CALLS.get(name, ()))]
    served = map(re.escape, (f"{name}.*", f"{name}.health"))
    topics = {topology.RPC_EXCHANGE: (_any([REPLY_KEY, *calls]), _any([UUID, *served]))}
    topics |= {exchange: (_any(map(re.escape, consumed)), NOTHING) for exchange in exchanges}
    if produced or broadcasts:
        keys = [re.escape(event.event_type) for event in broadcasts]
        topics[EXCHANGE] = (_any(map(re.escape, produced)), _any(keys))
    if produced:
        topics[topology.LOGGED_EVENTS] = (_any([re.escape(name)]), NOTHING)
    return User(
        name,
        configure=_any(own),
        write=_any([*own, *map(re.escape, [topology.RPC_EXCHANGE, *exchanges, *(PUBLISHING if produced else [])])]),
        read=_any(
            [
                *own,
                re.escape(topology.RPC_EXCHANGE),
                *map(re.escape, consumed),
                *([re.escape(topology.dead_letter_queue(name))] if consumed else []),
                *([EXCHANGE] if broadcasts else []),
                *([re.escape(topology.EVENT_LOG)] if name == GATEWAY else []),
            ]
        ),
        topics=topics,
    )


def _operator() -> User:
    """The user of `nameko shell`, the seed and the consistency check. It may call every service and do nothing else."""
    reply_queues = re.escape(topology.reply_queue("", "")).removesuffix(r"\-") + r".+"
    # Nameko's client also declares the exchange, although it exists.
    own = _any([re.escape(topology.RPC_EXCHANGE), reply_queues])
    return User(OPERATOR, own, own, own, {topology.RPC_EXCHANGE: (EVERYTHING, _any([UUID]))})


def _any(alternatives: Iterable[str]) -> str:
    """Return a regular expression that matches exactly these alternatives; without alternatives it matches nothing."""
    parts = list(alternatives)
    return f"^({'|'.join(parts)})$" if parts else NOTHING
