"""Too little processor time: a quarter for one service, for all of them, or for a server."""

import os
import random
from contextlib import contextmanager

from contracts.services import PROCESSES, SERVICES
from deploy.local.process import descendants
from qa.chaos.cpu_quota import limited
from qa.chaos.probes import CALLS, GATEWAY
from qa.chaos.slow_faults import EVERYTHING, ONE_SERVICE, Effect, SlowFault

QUARTER = 0.25
ALL = frozenset({GATEWAY, CALLS, *SERVICES})


def one_service(sandbox, chance: random.Random) -> Effect:
    """A quarter of a processor for each process of the service."""
    service = sandbox.next_of("a quarter of a processor", PROCESSES, chance)
    targets = [one for one in sandbox.instances if one.service == service]
    return _effect(service, frozenset({service}), targets, QUARTER * len(targets))


def all_services(sandbox, _chance) -> Effect:
    """A quarter of the machine for all processes of the suite together."""
    return _effect("all services", ALL, sandbox.instances, QUARTER * (os.cpu_count() or 1))


def _effect(what, affects, targets, cores):
    def pids():
        return [pid for one in targets if (pid := one.pid)]

    names = tuple(sorted({f"process {one.service}" for one in targets}))
    return Effect(f"{what} with {cores:g} processors", affects, _limiting(pids, cores), exclusive=names)


def _limiting(pids, cores):
    @contextmanager
    def broken():
        with limited(pids, share=QUARTER, cores=cores) as quota:
            yield quota.note

    return broken


def server(name):
    """A quarter of a processor for a server and all its processes."""

    def plan(sandbox, _chance):
        def pids():
            main = getattr(sandbox.servers, name).pid
            return [main, *descendants(main)] if main else []

        affects = ALL - {GATEWAY}
        return Effect(f"{name} with {QUARTER:g} processors", affects, _limiting(pids, QUARTER), exclusive=(name,))

    return plan


FAULTS = [
    SlowFault("a quarter of a processor for one service", one_service, ONE_SERVICE),
    SlowFault("a quarter of the processors for all services", all_services, EVERYTHING),
    SlowFault("a quarter of a processor for RabbitMQ", server("rabbitmq"), EVERYTHING),
    SlowFault("a quarter of a processor for PostgreSQL", server("postgres"), EVERYTHING),
]
