"""Frozen processes under traffic that needs them: SIGSTOP of all processes of a service, or of a server."""

import random
import signal
import threading
import time
from contextlib import contextmanager

from contracts.services import PROCESSES, SERVICES
from deploy.local.process import descendants, signal_process
from qa.chaos.faults import FaultNotInjected
from qa.chaos.probes import CALLS, GATEWAY
from qa.chaos.process_faults import stopped
from qa.chaos.slow_faults import EVERYTHING, NOTHING, Effect, SlowFault
from qa.chaos.slow_network import CACHE_ALLOWANCE
from qa.chaos.user import NO_RESPONSE

CLIENTS = 48  # more than the gateway has workers
PAUSE_SECONDS = 0.5  # of a client after a response: refusals are fast, and must not use up the machine
NEEDS = {
    "users": "/users/me",
    "catalog": "/products?limit=5",
    "orders": "/orders?limit=5",
    "inventory": "/inventory?limit=5",
    "payments": "/payments?limit=5",
    "notifications": "/notifications?limit=5",
    GATEWAY: "/health/live",
}
SERVERS = {
    "redis": (frozenset(), CACHE_ALLOWANCE),
    "postgres": (frozenset({CALLS, *SERVICES}), 0.0),
    "rabbitmq": (frozenset({CALLS, *SERVICES}), 0.0),
}


@contextmanager
def traffic(user, path):
    """Clients that read `path` again and again; yields a function that counts their responses."""
    over, threads, count = threading.Event(), [], []

    def read():
        client = user.new_connection()
        while not over.is_set():
            try:
                client.request("GET", path)
            except NO_RESPONSE:
                client.close()
            count.append(1)
            over.wait(PAUSE_SECONDS)
        client.close()

    for _ in range(CLIENTS):
        threads.append(threading.Thread(target=read, daemon=True))
        threads[-1].start()
    try:
        yield lambda: len(count)
    finally:
        over.set()  # a client may wait for its response for ten seconds more


def service(name):
    """All processes of a service, while clients read what only it has."""

    def plan(sandbox, _chance: random.Random) -> Effect:
        @contextmanager
        def broken():
            with stopped([one for one in sandbox.instances if one.service == name]) as pids:
                if not pids:
                    raise FaultNotInjected(f"{name} was down")
                with traffic(sandbox.admin, NEEDS[name]) as count:
                    yield lambda: f"{CLIENTS} clients got {count()} responses to GET {NEEDS[name]}"

        return Effect(f"{name} frozen", frozenset({name}), broken, exclusive=(f"process {name}",))

    return plan


def server(name):
    """A server with all its processes."""
    affects, allowance = SERVERS[name]

    def plan(sandbox, _chance: random.Random) -> Effect:
        @contextmanager
        def broken():
            main = getattr(sandbox.servers, name).pid
            if main is None:
                raise FaultNotInjected(f"{name} was down")
            pids, began = [main, *descendants(main)], time.monotonic()
            try:
                frozen = [pid for pid in pids if signal_process(pid, signal.SIGSTOP)]
                yield lambda: f"{len(frozen)} processes for {time.monotonic() - began:.1f} s"
            finally:
                for pid in pids:
                    signal_process(pid, signal.SIGCONT)

        return Effect(f"{name} frozen", affects, broken, exclusive=(name,), allowance=allowance)

    return plan


FAULTS = [
    *(SlowFault(f"{name} is frozen", service(name), name) for name in PROCESSES),
    *(SlowFault(f"{name} is frozen", server(name), EVERYTHING if SERVERS[name][0] else NOTHING) for name in SERVERS),
]
