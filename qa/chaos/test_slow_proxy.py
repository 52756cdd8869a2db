"""The slow faults of the proxy have their documented effect, heal, and keep the proxy within its bounds."""

import time
from contextlib import suppress
from types import SimpleNamespace

import pytest

from contracts.services import PROCESSES, SERVICES
from qa.chaos import proxy_process
from qa.chaos.proxy import BROKER, CACHE, DATABASE, Proxies
from qa.chaos.proxy_process import MOST_HELD, MOST_PIECES, Link, Side
from qa.chaos.sockets import connect, receive
from tests.support import eventually


def test_jitter_keeps_the_order_of_data(echo):
    proxies, port = echo
    with connect(port) as connection, proxies.fault(proxies.cache, "delay", seconds=0.05, jitter=0.2):
        sent = [f"{number:02d} ".encode() for number in range(20)]
        for part in sent:
            connection.sendall(part)
            time.sleep(0.002)  # in pieces of their own, with delays of their own
        assert receive(connection, 60) == b"".join(sent)


def test_low_bandwidth_is_shared_by_the_connections_of_a_link(echo):
    proxies, port = echo
    with connect(port) as one, connect(port) as other, proxies.fault(proxies.cache, "throttle", rate=20_000):
        began = time.monotonic()
        for connection in (one, other):
            connection.sendall(b"x" * 4_000)
        for connection in (one, other):
            assert receive(connection, 4_000) == b"x" * 4_000
        assert time.monotonic() - began >= 0.55  # 8 kB at 20 kB/s, and then 4 kB back


def test_silence_from_the_server_lets_requests_through_and_responses_wait(echo, received):
    proxies, port = echo
    with connect(port) as connection:
        with proxies.fault(proxies.cache, "silence", from_server=True):
            connection.sendall(b"request")
            eventually(lambda: b"".join(received) == b"request")
            connection.settimeout(0.2)
            with pytest.raises(TimeoutError):
                connection.recv(10)
        connection.settimeout(5)
        assert receive(connection, 7) == b"request"


def test_silence_towards_the_server_holds_the_request(echo, received):
    proxies, port = echo
    with connect(port) as connection:
        with proxies.fault(proxies.cache, "silence", from_server=False):
            connection.sendall(b"request")
            eventually(lambda: proxies.hits(proxies.cache) == 1)
            assert received == []
        assert receive(connection, 7) == b"request"


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("delay", {"seconds": 60, "jitter": 1}),
        ("throttle", {"rate": 1}),
        ("silence", {"from_server": True}),
        ("silence", {"from_server": False}),
    ],
)
def test_what_a_slow_fault_holds_arrives_when_it_heals_also_after_an_exception(echo, kind, values):
    proxies, port = echo
    with connect(port) as connection:
        with suppress(ZeroDivisionError), proxies.fault(proxies.cache, kind, **values):
            connection.sendall(b"held")
            eventually(lambda: proxies.hits(proxies.cache) > 0)
            1 / 0  # noqa: B018
        assert receive(connection, 4) == b"held"
        connection.sendall(b"fast")
        assert receive(connection, 4) == b"fast"


def test_every_service_has_its_own_link_to_each_server():
    given = {f"{service.upper()}_{server}": "x://u:p@127.0.0.1:1/" for service in SERVICES for server in SERVERS}
    given |= {f"GATEWAY_{server}": "x://127.0.0.1:1/" for server in (BROKER, CACHE)}
    given |= {"ORDERS_OWNER_DATABASE_URL": "x://owner@127.0.0.1:1/"}
    proxies = Proxies()
    environment = proxies.start(given)
    proxies.stop()
    links = {proxies.link(service, server) for service in PROCESSES for server in SERVERS} - {None}
    assert len(links) == 3 * len(SERVICES) + 2
    assert len({environment[link] for link in links}) == len(links)
    assert proxies.link("gateway", DATABASE) is None
    assert environment["ORDERS_OWNER_DATABASE_URL"] == given["ORDERS_OWNER_DATABASE_URL"]


SERVERS = (BROKER, CACHE, DATABASE)


class Transport:
    """The part of a transport that a side uses."""

    def __init__(self):
        self.reads, self.sent = True, b""

    def is_closing(self):
        return False

    def pause_reading(self):
        self.reads = False

    def resume_reading(self):
        self.reads = True

    def write(self, data):
        self.sent += data


@pytest.fixture
def sides():
    link = SimpleNamespace(fault=None, sides=set())
    client, server = Side(link, is_server=False), Side(link, is_server=True)
    client.other, server.other = server, client
    client.transport, server.transport = Transport(), Transport()
    return client, server


def test_a_side_that_holds_too_many_bytes_stops_reading(sides):
    client, server = sides
    client.hold(b"x" * MOST_HELD)
    assert client.transport.reads
    client.hold(b"x")
    assert not client.transport.reads
    client.release()
    assert client.transport.reads
    assert len(server.transport.sent) == MOST_HELD + 1


def test_a_side_that_holds_too_many_pieces_stops_reading(sides):
    client, _server = sides
    for _ in range(MOST_PIECES + 1):
        client.hold(b"x", due=1.0)
    assert not client.transport.reads


def test_a_release_does_not_read_more_for_a_receiver_that_does_not_read(sides):
    client, server = sides
    server.pause_writing()
    client.hold(b"x", due=1.0)
    client.release(now=2.0)
    assert not client.transport.reads
    server.resume_writing()
    assert client.transport.reads


def test_a_link_closes_connections_above_its_bound(sides, monkeypatch):
    monkeypatch.setattr(proxy_process, "MOST_CONNECTIONS", 2)
    link = Link(["127.0.0.1", 1])
    assert not link.is_full()
    link.sides, link.connecting = set(sides), 1
    assert link.is_full()
    for side in sides:
        side.is_lost = True
    assert not link.is_full()
