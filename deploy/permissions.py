"""The broker's users, and what each of them may do there: nothing that the contracts do not say.

A service may consume its own queues, publish the events that it produces, call the methods that contracts/calls.py
names, answer, and send what it could not handle to its own queues again. What it declares itself lives as long as its
process: its queue for calls, that for answers, and those of broadcasts. Everything else stands in the definitions.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from contracts.calls import CALLS, bus_services
from contracts.events import EVENTS, EXCHANGE, queue_name
from deploy.accounts import OPERATOR
from extensions.messaging import topology

UUID = "[0-9a-f-]{36}"
ANSWER = "[^.#*]+"  # the address of an answer has no dot, that of a call has one
NOTHING, EVERYTHING = "^$", ".*"


@dataclass(frozen=True)
class User:
    """Somebody who may log in. The permissions are regular expressions, as RabbitMQ has them."""

    name: str
    configure: str
    write: str
    read: str
    topics: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """By exchange: the routing keys that may be published to, and those that queues may be bound with."""
    tags: str = ""


def users(administrator: str, delays: Iterable[int]) -> list[User]:
    """Return all users of the suite; `delays` are the pauses between retries, in ms."""
    everybody = [_service(service, list(delays)) for service in bus_services()]
    return [*everybody, _operator(), User(administrator, EVERYTHING, EVERYTHING, EVERYTHING, tags="administrator")]


def _service(name: str, delays: list[int]) -> User:
    produced = [event.event_type for event in EVENTS.values() if event.producer == name]
    consumed = [queue_name(name, event) for event in EVENTS.values() if name in event.consumers]
    heard = [event for event in EVENTS.values() if name in event.listeners]
    own = [
        re.escape(f"rpc-{name}"),
        re.escape(topology.reply_queue(name, "")) + UUID,
        *(re.escape(queue_name(name, event) + ".") + UUID for event in heard),
    ]
    exchanges = [topology.AGAIN, *map(topology.retry_exchange, delays)] if consumed else []
    calls = [re.escape(call).replace(r"\*", "[a-z_]+") for call in (f"{name}.*", *CALLS.get(name, ()))]
    topics = {topology.RPC_EXCHANGE: (_any([ANSWER, *calls]), _any([UUID, re.escape(f"{name}.*")]))}
    topics |= {exchange: (_any(map(re.escape, consumed)), NOTHING) for exchange in exchanges}
    if produced or heard:
        keys = [re.escape(event.event_type) for event in heard]
        topics[EXCHANGE] = (_any(map(re.escape, produced)), _any(keys))
    return User(
        name,
        configure=_any(own),
        write=_any([*own, *map(re.escape, [topology.RPC_EXCHANGE, *exchanges, *([EXCHANGE] if produced else [])])]),
        read=_any(
            [
                *own,
                re.escape(topology.RPC_EXCHANGE),
                *map(re.escape, consumed),
                *([re.escape(topology.dead_letter_queue(name))] if consumed else []),
                *([EXCHANGE] if heard else []),
            ]
        ),
        topics=topics,
    )


def _operator() -> User:
    """The person at `nameko shell`, the seed and the comparison of the books: they call every service, no more."""
    answers = re.escape(topology.reply_queue("", "")).removesuffix(r"\-") + r".+"
    # Nameko's own client declares the exchange too, which is there.
    own = _any([re.escape(topology.RPC_EXCHANGE), answers])
    return User(OPERATOR, own, own, own, {topology.RPC_EXCHANGE: (EVERYTHING, _any([UUID]))})


def _any(alternatives: Iterable[str]) -> str:
    """Return the expression that matches exactly these; nothing where there are none."""
    parts = list(alternatives)
    return f"^({'|'.join(parts)})$" if parts else NOTHING
