"""Transactions begin with their first statement, in the same round trip, and nothing is executed outside of one."""

import io

import psycopg2
import pytest
from sqlalchemy import text

from extensions.storage.connection import Connection
from extensions.storage.engine import bound_every_wait, make_engine
from tests.support import database, owned_database

OPEN = psycopg2.extensions.TRANSACTION_STATUS_INTRANS
NONE = psycopg2.extensions.TRANSACTION_STATUS_IDLE
INSERT = "INSERT INTO timers VALUES (%s, now())"


@pytest.fixture
def connection(servers):
    url = servers.addresses()["ORDERS_DATABASE_URL"].replace("+psycopg2", "")
    connection = psycopg2.connect(url, connection_factory=Connection)
    yield connection
    connection.close()


def stored():
    """The timers of these tests that are committed."""
    with database("orders").connect() as other:
        return set(other.scalars(text("SELECT name FROM timers WHERE name LIKE 'connection %'")))


@pytest.fixture(autouse=True)
def _clean(servers):
    yield
    with owned_database("orders").begin() as other:
        other.execute(text("DELETE FROM timers WHERE name LIKE 'connection %'"))


WAYS = {
    "execute": lambda cursor: cursor.execute(INSERT, ["connection 1"]),
    "executemany": lambda cursor: cursor.executemany(INSERT, [["connection 1"], ["connection 2"]]),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_rollback_undoes_every_statement_since_the_last_commit(connection, way):
    with connection.cursor() as cursor:
        way(cursor)
        assert connection.info.transaction_status == OPEN
        connection.rollback()
        assert connection.info.transaction_status == NONE
        assert stored() == set()
        way(cursor)
        connection.commit()
    assert "connection 1" in stored()


def test_functions_are_part_of_the_transaction(connection):
    with connection.cursor() as cursor:
        cursor.callproc("now")
        assert connection.info.transaction_status == OPEN


def test_copy_is_refused_and_not_executed_outside_of_a_transaction(connection):
    bound_every_wait()
    with connection.cursor() as cursor, pytest.raises(psycopg2.ProgrammingError, match="cannot be used"):
        cursor.copy_expert("COPY timers FROM STDIN", io.StringIO("connection 1\t2026-11-29\n"))
    assert stored() == set()


def test_begin_costs_no_round_trip_and_comes_once(connection):
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.query == b"BEGIN; SELECT 1"
        cursor.execute("SELECT 2")
        assert (cursor.query, cursor.fetchone()) == (b"SELECT 2", (2,))


def test_after_an_error_the_transaction_accepts_nothing_until_it_ends(connection):
    with connection.cursor() as cursor:
        cursor.execute(INSERT, ["connection 1"])
        with pytest.raises(psycopg2.errors.UndefinedColumn):
            cursor.execute("SELECT nothing FROM timers")
        with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
            cursor.execute("SELECT 1")
        connection.rollback()
        with pytest.raises(psycopg2.errors.SyntaxError):
            cursor.execute("SELEKT 1")  # the parser refuses the whole text, BEGIN included
        connection.rollback()
        cursor.execute("SELECT 1")
    assert stored() == set()


def test_without_begins_a_statement_is_outside_of_any_transaction(connection):
    connection.begins = False
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    assert connection.info.transaction_status == NONE


def test_a_closed_connection_says_so(connection):
    connection.close()
    for end in (connection.commit, connection.rollback):
        with pytest.raises(psycopg2.InterfaceError):
            end()


def test_engines_use_it(servers):
    with make_engine(servers.addresses()["ORDERS_DATABASE_URL"]).connect() as opened:
        opened.execute(text("SELECT 1"))
        assert isinstance(opened.connection.driver_connection, Connection)


def test_a_lock_timeout_holds_for_one_transaction(connection):
    with connection.cursor() as cursor:

        def shown():
            cursor.execute("SHOW lock_timeout")
            return cursor.fetchone()[0]

        usual = shown()
        connection.commit()
        connection.lock_timeout = "250ms"
        assert [shown(), shown()] == ["250ms", "250ms"]
        connection.rollback()
        assert shown() == usual != "250ms"
