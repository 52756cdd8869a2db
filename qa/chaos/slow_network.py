"""Slow connections between one service and one server: latency, low bandwidth, silence in one direction."""

import random
from contextlib import contextmanager
from dataclasses import dataclass

from contracts.services import PROCESSES, SERVICES
from deploy.redis_users import RULES
from qa.chaos.probes import CALLS, GATEWAY
from qa.chaos.proxy import BROKER, CACHE, DATABASE
from qa.chaos.slow_faults import NOTHING, ONE_SERVICE, Effect, SlowFault

SERVERS = {BROKER: "RabbitMQ", DATABASE: "PostgreSQL", CACHE: "Redis"}
# Every service has a user of Redis; those without permissions send nothing.
USERS_OF = {BROKER: PROCESSES, DATABASE: SERVICES, CACHE: tuple(one for one, rules in RULES.items() if rules)}
CACHE_ALLOWANCE = 0.1  # seconds: contract section 8
JITTER = 0.2  # of the latency
SLOWEST, FASTEST = 2_000, 64_000  # bytes per second


@dataclass(frozen=True)
class SlowLink:
    """A fault of the proxy on the link of a service to `server`; each service in turn."""

    server: str
    kind: str
    words: str
    values: dict

    @property
    def name(self):
        return f"{self.words} {SERVERS[self.server]}"

    def __call__(self, sandbox, chance: random.Random) -> Effect:
        links = {one: link for one in USERS_OF[self.server] if (link := sandbox.proxies.link(one, self.server))}
        service = sandbox.next_of(self.name, list(links), chance)
        link, values = links[service], dict(self.values)
        if self.kind == "throttle":
            values["rate"] = chance.randint(SLOWEST, FASTEST)

        @contextmanager
        def broken():
            with sandbox.proxies.fault([link], self.kind, **values):
                yield lambda: _note(sandbox.proxies.hits([link]))

        parameters = "".join(f", {name} {value}" for name, value in values.items())
        what = f"{service} and {SERVERS[self.server]}{parameters}"
        return Effect(
            what,
            affected_by(service, self.server),
            broken,
            exclusive=(link,),
            allowance=CACHE_ALLOWANCE if self.server == CACHE else 0.0,
        )


def affected_by(service, server):
    """What needs the link: without Redis everything has to work, and the gateway needs RabbitMQ for calls only."""
    if server == CACHE:
        return frozenset()
    return frozenset({CALLS if service == GATEWAY else service})


def _note(pieces):
    return f"{pieces} pieces of data" if pieces else ""


def latency(milliseconds):
    """A round trip takes so many milliseconds longer, and up to a fifth more."""
    one_way = milliseconds / 2000
    values = {"seconds": one_way, "jitter": JITTER * one_way}
    return "delay", f"latency of {milliseconds} ms to", values


KINDS = [
    latency(50),
    latency(500),
    latency(5000),
    ("throttle", "low bandwidth to", {}),
    ("silence", "silence from", {"from_server": True}),
    ("silence", "silence towards", {"from_server": False}),
]
LINKS = [SlowLink(server, *kind) for kind in KINDS for server in SERVERS]
FAULTS = [SlowFault(link.name, link, NOTHING if link.server == CACHE else ONE_SERVICE) for link in LINKS]
