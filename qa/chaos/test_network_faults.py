"""Every network fault can be injected and removed; a fault without traffic does not count."""

import random
import socket
from contextlib import closing, nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import redis

from contracts.services import SERVICES
from qa.chaos.faults import FaultNotInjected
from qa.chaos.network_faults import FAULTS
from qa.chaos.proxy import Proxies
from qa.chaos.slow_network import FAULTS as SLOW_FAULTS


@pytest.fixture
def sandbox(servers):
    """The parts of a sandbox that a network fault needs."""
    proxies = Proxies()
    environment = proxies.start(servers.addresses())
    yield SimpleNamespace(
        proxies=proxies,
        environment=environment,
        slow_seconds=(0.0, 0.05),
        exclusively=lambda *_: nullcontext(),
        watched=lambda *_: nullcontext(),
        next_of=lambda _kind, services, chance: chance.choice(services),
    )
    proxies.stop()


def test_no_fault_counts_without_traffic(sandbox):
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    for number, fault in enumerate(FAULTS):
        with pytest.raises(FaultNotInjected):
            replace(fault, seconds=(0.0, 0.1)).inject(sandbox, random.Random(number))
    assert ping(sandbox)


def test_a_fault_that_broke_a_connection_counts(sandbox):
    refused = next(fault for fault in FAULTS if fault.name == "the cache refuses connections")
    with connect(sandbox) as connection:
        connection.sendall(b"PING\r\n")
        connection.recv(100)
        assert "1 times" in replace(refused, seconds=(0.0, 0.1)).inject(sandbox, random.Random(1))
    assert ping(sandbox)


def connect(sandbox):
    port = int(sandbox.environment["REDIS_URL"].rpartition(":")[2].partition("/")[0])
    return closing(socket.create_connection(("127.0.0.1", port), timeout=5))


def ping(sandbox):
    return redis.Redis.from_url(sandbox.environment["REDIS_URL"]).ping()


def test_no_slow_fault_counts_without_traffic(sandbox):
    for number, fault in enumerate(SLOW_FAULTS):
        with pytest.raises(FaultNotInjected):
            fault.inject(sandbox, random.Random(number))
    assert ping(sandbox)


def test_a_slow_fault_affects_the_service_of_its_link(sandbox):
    affected = {fault.plan(sandbox, random.Random(number)).affects for fault in SLOW_FAULTS for number in range(30)}
    assert affected == {frozenset(), *(frozenset({one}) for one in ("calls", *SERVICES))}
