"""Waits for PostgreSQL: each has a deadline, whatever the network does, and ends as an outage."""

import eventlet
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from extensions.storage import engine as database
from extensions.storage.response_timeout import response_timeout
from qa.chaos.proxy import Proxies
from tests.stopwatch import Stopwatch

DATABASE = "ORDERS_DATABASE_URL"


@pytest.fixture
def proxies(servers, monkeypatch):
    """A proxy before PostgreSQL. It keeps the connection open, so that no TCP timeout applies."""
    monkeypatch.setattr(database, "RESPONSE_TIMEOUT_SECONDS", 1.0)
    monkeypatch.setattr(database, "CONNECT_TIMEOUT_SECONDS", 1.0)
    database.bound_every_wait()
    proxies = Proxies()
    proxies.url = proxies.start(servers.addresses())[DATABASE]
    with eventlet.Timeout(20):
        yield proxies
    proxies.stop()


@pytest.mark.parametrize("silence", ["stall", "freeze"])
def test_a_connected_server_that_does_not_respond_is_an_outage(proxies, silence):
    engine = database.make_engine(proxies.url)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        began = Stopwatch()
        with proxies.fault([DATABASE], silence), pytest.raises(OperationalError) as caught:
            connection.execute(text("SELECT 2"))
        assert began.wall > 0.9
        assert began.seconds < 5
        assert database.is_outage(caught.value)
    with engine.connect() as connection:  # the next connection is a new one
        assert connection.scalar(text("SELECT 3")) == 3


def test_a_server_that_accepts_a_connection_and_does_not_respond_is_an_outage(proxies, monkeypatch):
    monkeypatch.setattr(
        database, "RESPONSE_TIMEOUT_SECONDS", 60.0
    )  # a shorter wait applies before there is a connection
    engine = database.make_engine(proxies.url)
    began = Stopwatch()
    with proxies.fault([DATABASE], "stall"), pytest.raises(OperationalError) as caught:
        engine.connect()
    assert began.wall > 0.9
    assert began.seconds < 5
    assert database.is_outage(caught.value)


def test_a_longer_response_timeout_applies_inside_its_block_only(proxies):
    with database.make_engine(proxies.url).connect() as connection:
        with response_timeout(3.0):
            assert connection.scalar(text("SELECT 4 FROM pg_sleep(1.5)")) == 4
        with pytest.raises(OperationalError):
            connection.scalar(text("SELECT 4 FROM pg_sleep(1.5)"))


def test_a_slow_response_is_awaited(proxies):
    with database.make_engine(proxies.url).connect() as connection:
        assert connection.scalar(text("SELECT 4 FROM pg_sleep(0.7)")) == 4


def test_a_locked_row_is_an_outage_to_every_transaction_that_waits_for_it(servers):
    engine = database.make_engine(servers.addresses()[DATABASE])
    row, claim = "SELECT name FROM timers WHERE name = 'held' FOR UPDATE", "INSERT INTO timers VALUES ('held', now())"
    failures = []

    def wait_for_the_row():
        with engine.connect() as connection, pytest.raises(OperationalError) as caught:
            connection.execute(text(row))
        failures.append(caught.value)

    with engine.begin() as setup:
        setup.execute(text(f"{claim} ON CONFLICT DO NOTHING"))
    with engine.begin() as holder, eventlet.Timeout(25):
        holder.execute(text(row))
        first = eventlet.spawn(wait_for_the_row)
        eventlet.sleep(a_share_of_the_lock_timeout())
        second = eventlet.spawn(wait_for_the_row)  # waits for the first, until that times out, and then for the row
        first.wait()
        second.wait()
    assert [database.is_outage(failure) for failure in failures] == [True, True]


def a_share_of_the_lock_timeout():
    """Return three eighths of lock_timeout in seconds: with it, the statement of the second waits longest."""
    return int(database.SESSION_SETTINGS["lock_timeout"].removesuffix("s")) * 3 / 8


def test_a_connection_that_was_lost_while_idle_is_replaced_without_an_error(servers):
    engine = database.make_engine(servers.addresses()[DATABASE])
    with engine.connect() as connection:
        dead = connection.scalar(text("SELECT pg_backend_pid()"))
    terminate(servers, dead)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT pg_backend_pid()")) != dead


def test_an_idle_connection_is_used_again_without_a_round_trip(proxies):
    engine = database.make_engine(proxies.url)
    with engine.connect() as connection:
        backend = connection.scalar(text("SELECT pg_backend_pid()"))
    with proxies.fault([DATABASE], "stall"):
        engine.connect().close()  # a check that asks PostgreSQL would meet its deadline
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT pg_backend_pid()")) == backend


def test_a_connection_is_kept_if_what_it_received_while_idle_is_no_error(servers):
    engine = database.make_engine(servers.addresses()[DATABASE])
    with engine.connect() as connection:
        backend = connection.scalar(text("SELECT pg_backend_pid()"))
        connection.execute(text("LISTEN a_channel_of_this_test"))
        connection.commit()
    with database.make_engine(servers.addresses()[DATABASE]).begin() as other:
        other.execute(text("NOTIFY a_channel_of_this_test"))
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT pg_backend_pid()")) == backend


def test_a_connection_that_is_lost_during_its_use_is_an_outage(servers):
    engine = database.make_engine(servers.addresses()[DATABASE])
    with engine.connect() as connection:
        terminate(servers, connection.scalar(text("SELECT pg_backend_pid()")))
        with pytest.raises(OperationalError) as caught:
            connection.execute(text("SELECT 1"))
    assert database.is_outage(caught.value)


def terminate(servers, backend):
    with database.make_engine(servers.addresses()[DATABASE]).connect() as other:
        other.execute(text("SELECT pg_terminate_backend(:backend, 5000)"), {"backend": backend})
