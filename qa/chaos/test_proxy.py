"""The proxy: without a fault it forwards data unchanged, and each fault has its documented effect."""

import threading
import time

import amqp
import psycopg2
import pytest
import sqlalchemy
from kombu.utils.url import parse_url

from qa.chaos.proxy import Proxies
from qa.chaos.sockets import connect, receive

DATABASE = "ORDERS_DATABASE_URL"
OWNERS = "ORDERS_OWNER_DATABASE_URL"


@pytest.fixture(scope="module")
def through(servers):
    """(the proxies, the environment with their addresses)."""
    proxies = Proxies()
    yield proxies, proxies.start(servers.addresses())
    proxies.stop()


def is_broken(connection):
    try:
        return connection.recv(10) == b""  # a green socket does not distinguish a RST from a FIN
    except ConnectionResetError:
        return True


def test_data_is_forwarded_unchanged_also_large_data(echo):
    _proxies, port = echo
    sent = bytes(range(256)) * 20_000
    with connect(port) as connection:
        threading.Thread(target=connection.sendall, args=[sent], daemon=True).start()
        assert receive(connection, len(sent)) == sent


def test_only_the_port_of_a_url_changes():
    proxies = Proxies()
    given = {"AMQP_URI": "pyamqp://guest:guest@127.0.0.1:5672//", "OTHER": "untouched"}
    given |= {"REDIS_URL": "redis://127.0.0.1:6379/0", "ORDERS_REDIS_URL": "redis://orders:o@127.0.0.1:6379/0"}
    environment = proxies.start(given)
    proxies.stop()
    assert environment["AMQP_URI"].startswith("pyamqp://guest:guest@127.0.0.1:")
    assert environment["AMQP_URI"].endswith("//")
    assert environment["AMQP_URI"] != given["AMQP_URI"]
    assert environment["OTHER"] == "untouched"
    assert environment["ORDERS_REDIS_URL"].startswith("redis://orders:o@127.0.0.1:")
    assert environment["REDIS_URL"] != given["REDIS_URL"]


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("from_server", [True, False])
def test_cut_closes_a_connection_after_a_number_of_bytes(echo, from_server, reset):
    proxies, port = echo
    with (
        connect(port) as connection,
        proxies.fault(proxies.cache, "cut", after=10, from_server=from_server, reset=reset),
    ):
        connection.sendall(b"123456")
        assert receive(connection, 6) == b"123456"
        connection.sendall(b"7890abc")
        try:
            rest = receive(connection, 100)
        except ConnectionResetError:
            assert reset
        else:
            assert len(rest) <= 4
        assert proxies.hits(proxies.cache) == 1
    with connect(port) as again:
        again.sendall(b"hello, and more than ten bytes")
        assert receive(again, 30) == b"hello, and more than ten bytes"


def test_delay_keeps_the_order_of_data(echo):
    proxies, port = echo
    with connect(port) as connection, proxies.fault(proxies.cache, "delay", seconds=0.1):
        began = time.monotonic()
        for part in (b"one ", b"two ", b"three"):
            connection.sendall(part)
        assert receive(connection, 13) == b"one two three"
        assert time.monotonic() - began >= 0.2  # there and back


def test_stall_holds_data_until_the_fault_ends(echo):
    proxies, port = echo
    with connect(port) as before:
        with proxies.fault(proxies.cache, "stall"), connect(port) as meanwhile:
            before.sendall(b"held")
            meanwhile.sendall(b"lost with its sender")
            before.settimeout(0.3)
            with pytest.raises(TimeoutError):
                before.recv(10)
        before.settimeout(5)
        assert receive(before, 4) == b"held"


def test_freeze_makes_connections_half_open_and_accepts_new_ones(echo):
    proxies, port = echo
    with connect(port) as before:
        before.sendall(b"x")
        receive(before, 1)
        with proxies.fault(proxies.cache, "freeze"), connect(port) as new:
            before.sendall(b"into the void")
            new.sendall(b"alive")
            assert receive(new, 5) == b"alive"
            before.settimeout(0.3)
            with pytest.raises(TimeoutError):
                before.recv(10)
        before.settimeout(5)
        assert is_broken(before)


def test_refuse_resets_and_refuses_connections_until_the_fault_ends(echo):
    proxies, port = echo
    with connect(port) as before:
        before.sendall(b"x")
        receive(before, 1)
        with proxies.fault(proxies.cache, "refuse"):
            assert is_broken(before)
            with pytest.raises(ConnectionRefusedError):
                connect(port)
    with connect(port) as after:
        after.sendall(b"back")
        assert receive(after, 4) == b"back"


def test_a_fault_ends_when_the_block_raises_and_an_unknown_kind_is_an_error(echo):
    proxies, port = echo
    with pytest.raises(ZeroDivisionError), proxies.fault(proxies.cache, "stall"):
        1 / 0  # noqa: B018
    with pytest.raises(ValueError, match="no_such"), proxies.fault(proxies.cache, "no_such"):
        pass
    with connect(port) as connection:
        connection.sendall(b"well")
        assert receive(connection, 4) == b"well"


@pytest.fixture
def marks(servers, through):
    """An engine that uses the proxy, and a function that reads the table of numbers without it."""
    direct = sqlalchemy.create_engine(servers.addresses()[OWNERS], poolclass=sqlalchemy.NullPool)
    with direct.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE proxy_marks (number int)"))
        connection.execute(sqlalchemy.text("GRANT INSERT ON proxy_marks TO orders"))

    def stored():
        with direct.connect() as connection:
            return connection.execute(sqlalchemy.text("SELECT number FROM proxy_marks")).scalars().all()

    proxied = sqlalchemy.create_engine(through[1][DATABASE], poolclass=sqlalchemy.NullPool)
    yield proxied, stored
    with direct.begin() as connection:
        connection.execute(sqlalchemy.text("DROP TABLE proxy_marks"))


@pytest.mark.parametrize(("kind", "kept"), [("lostreply", [1]), ("lostcommit", [])])
def test_a_commit_is_executed_if_its_reply_is_lost_but_not_if_the_commit_is_lost(through, marks, kind, kept):
    proxies, _environment = through
    engine, stored = marks
    with proxies.fault([DATABASE], kind, count=1):
        with pytest.raises(sqlalchemy.exc.OperationalError), engine.begin() as connection:
            connection.execute(sqlalchemy.text("INSERT INTO proxy_marks VALUES (1)"))
        assert proxies.hits([DATABASE]) == 1
    assert stored() == kept
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("INSERT INTO proxy_marks VALUES (2)"))
    assert stored() == [*kept, 2]


def test_a_message_whose_confirm_is_lost_is_in_the_queue(through):
    proxies, environment = through
    address = parse_url(environment["AMQP_URI"])
    broker = {"host": f"127.0.0.1:{address['port']}", "userid": address["userid"], "password": address["password"]}
    with amqp.Connection(**broker) as watching, amqp.Connection(**broker) as publishing:
        seen = watching.channel()
        queue = seen.queue_declare(exclusive=False).queue
        channel = publishing.channel()
        channel.confirm_select()
        with proxies.fault(proxies.broker, "lostconfirm", count=1):
            with pytest.raises(OSError):
                channel.basic_publish_confirm(amqp.Message("{}"), "", queue)
            assert proxies.hits(proxies.broker) == 1
        assert seen.basic_get(queue, no_ack=True).body == "{}"
        seen.queue_delete(queue)
        publishing.collect()


def test_one_database_can_be_disconnected_alone(through):
    proxies, environment = through
    with proxies.fault([DATABASE], "refuse"):
        with pytest.raises(psycopg2.OperationalError):
            psycopg2.connect(environment[DATABASE].replace("+psycopg2", ""))
        psycopg2.connect(environment["USERS_DATABASE_URL"].replace("+psycopg2", "")).close()
