"""Network faults between the services and their servers: the faults of the proxy, with random parameters."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qa.chaos.faults import FaultNotInjected

Values = dict[str, Any]


def broker(proxies, _chance):
    return proxies.broker


def cache(proxies, _chance):
    return proxies.cache


def databases(proxies, _chance):
    """All databases: a fault of PostgreSQL's network affects all of them."""
    return proxies.databases


def some_databases(proxies, chance):
    """The databases of one to three services."""
    return sorted(chance.sample(proxies.databases, chance.randint(1, 3)))


def everything(proxies, _chance):
    return [*proxies.broker, *proxies.cache, *proxies.databases]


@dataclass(frozen=True)
class NetworkFault:
    """One kind of proxy fault on the links that `where` chooses, for a random time within the bounds `seconds`.

    A fault with a `count` ends as soon as it has had its effect so many times.
    """

    name: str
    where: Callable[..., list[str]]
    kind: str
    values: Callable[[random.Random], Values]
    seconds: tuple[float, float]

    def inject(self, sandbox, chance):
        links, values = self.where(sandbox.proxies, chance), self.values(chance)
        held = chance.uniform(*self.seconds)
        with sandbox.proxies.fault(links, self.kind, **values):
            if "count" in values:
                sandbox.proxies.await_hits(links, values["count"] * len(links), held)
            else:
                time.sleep(held)
            hits = sandbox.proxies.hits(links)
        if not hits:
            raise FaultNotInjected(f"no traffic on {', '.join(links)} in {held:.1f} s")
        parameters = ", ".join(f"{name} {value}" for name, value in values.items()) or "no parameters"
        where = _in_words(sandbox.proxies, links)
        return f"{self.name}: {where} ({parameters}) for {held:.1f} s, {hits} times"


def _in_words(proxies, links):
    """The links, and for all links of a server its name."""
    groups = {"RabbitMQ": proxies.broker, "Redis": proxies.cache, "all databases": proxies.databases}
    whole = [name for name, group in groups.items() if set(group) <= set(links)]
    rest = set(links) - {link for name in whole for link in groups[name]}
    return ", ".join([*whole, *sorted(rest)])


def nothing(_chance):
    return {}


def cut(chance):
    """After a number of bytes, from within the first frame up to some thousand messages."""
    return {
        "after": int(10 ** chance.uniform(0, 5)),
        "from_server": chance.random() < 0.5,
        "reset": chance.random() < 0.5,
    }


def short_delay(chance):
    return {"seconds": round(chance.uniform(0.05, 0.3), 3)}


def a_few(chance):
    return {"count": chance.randint(1, 5)}


# Longer than every timeout: the gateway's 5 s, a confirm's 10 s, a statement's 10 s, TCP_USER_TIMEOUT's 15 s.
LONG = (16.0, 22.0)

FAULTS = [
    NetworkFault("the broker's connections are cut", broker, "cut", cut, (0.5, 4.0)),
    NetworkFault("the databases' connections are cut", databases, "cut", cut, (0.5, 4.0)),
    NetworkFault("the connections of some databases are cut", some_databases, "cut", cut, (0.5, 6.0)),
    NetworkFault("the cache's connections are cut", cache, "cut", cut, (0.5, 4.0)),
    NetworkFault("the broker is slow to reach", broker, "delay", short_delay, (2.0, 8.0)),
    NetworkFault("the databases are slow to reach", databases, "delay", short_delay, (2.0, 8.0)),
    NetworkFault("the cache is slow to reach", cache, "delay", short_delay, (2.0, 8.0)),
    NetworkFault("the broker says nothing", broker, "stall", nothing, LONG),
    NetworkFault("the databases say nothing", databases, "stall", nothing, LONG),
    NetworkFault("some databases say nothing", some_databases, "stall", nothing, LONG),
    NetworkFault("the cache says nothing", cache, "stall", nothing, (5.0, 20.0)),
    NetworkFault("the broker's connections are half-open", broker, "freeze", nothing, LONG),
    NetworkFault("the databases' connections are half-open", databases, "freeze", nothing, LONG),
    NetworkFault("the cache's connections are half-open", cache, "freeze", nothing, (5.0, 20.0)),
    NetworkFault("the broker refuses connections", broker, "refuse", nothing, (0.5, 8.0)),
    NetworkFault("the databases refuse connections", databases, "refuse", nothing, (0.5, 8.0)),
    NetworkFault("one to three databases refuse connections", some_databases, "refuse", nothing, (0.5, 8.0)),
    NetworkFault("the cache refuses connections", cache, "refuse", nothing, (0.5, 8.0)),
    NetworkFault("no server can be reached", everything, "refuse", nothing, (0.5, 8.0)),
    NetworkFault("replies to COMMIT are lost", databases, "lostreply", a_few, (1.0, 4.0)),
    NetworkFault("COMMITs are lost", databases, "lostcommit", a_few, (1.0, 4.0)),
    NetworkFault("confirms are lost", broker, "lostconfirm", a_few, (1.0, 6.0)),
]
