"""Every network fault can be injected and heals, and one that met nobody does not count."""

import random
import socket
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import pytest

from qa.chaos.faults import NotStruck
from qa.chaos.network_faults import FAULTS
from qa.chaos.proxy import Proxies


@pytest.fixture
def arena(servers):
    """As much of one as a network fault needs."""
    proxies = Proxies()
    environment = proxies.start(servers.addresses())
    yield SimpleNamespace(proxies=proxies, environment=environment)
    proxies.stop()


def test_all_can_be_struck_and_without_traffic_none_counts(arena):
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    for number, fault in enumerate(FAULTS):
        with pytest.raises(NotStruck):
            replace(fault, seconds=(0.0, 0.1)).strike(arena, random.Random(number))
    assert ping(arena) == b"+PONG\r\n"


def test_one_that_broke_a_connection_counts_and_says_so(arena):
    refused = next(fault for fault in FAULTS if fault.name == "the cache refuses connections")
    with connect(arena) as connection:
        connection.sendall(b"PING\r\n")
        connection.recv(100)
        assert "1 times" in replace(refused, seconds=(0.0, 0.1)).strike(arena, random.Random(1))
    assert ping(arena) == b"+PONG\r\n"


def connect(arena):
    port = int(arena.environment["REDIS_URL"].rpartition(":")[2].partition("/")[0])
    return closing(socket.create_connection(("127.0.0.1", port), timeout=5))


def ping(arena):
    with connect(arena) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(100)
