"""Each service's role of PostgreSQL reaches its own database, and nothing else of the server."""

import psycopg2
import pytest
from psycopg2 import errors

from deploy.local.postgres import services
from deploy.local.servers import database_variable


@pytest.fixture(params=services())
def me(request):
    """A service whose password somebody has got hold of."""
    return request.param


def url(environment, service):
    return environment[database_variable(service)].replace("+psycopg2", "")


@pytest.fixture
def mine(environment, me):
    connection = psycopg2.connect(url(environment, me))
    connection.autocommit = True
    yield connection.cursor()
    connection.close()


def test_no_other_database_lets_a_service_in(environment, me):
    for other in {*services(), "postgres", "template1"} - {me}:
        elsewhere = url(environment, me).rpartition("/")[0] + f"/{other}"
        with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
            psycopg2.connect(elsewhere)


def test_a_password_opens_one_role(environment, me):
    for other in set(services()) - {me}:
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            psycopg2.connect(url(environment, me).replace(f"{me}:{me}@", f"{other}:{me}@"))


def test_a_service_can_make_itself_nothing_more(mine, me):
    mine.execute(
        "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls FROM pg_roles"
        " WHERE rolname = current_user"
    )
    assert mine.fetchone() == (False,) * 5
    mine.execute("SELECT count(*) FROM pg_auth_members WHERE member = current_user::regrole")
    assert mine.fetchone() == (0,)
    other = next(service for service in services() if service != me)
    for statement in (
        "CREATE ROLE another LOGIN SUPERUSER",
        "CREATE DATABASE another",
        "ALTER SYSTEM SET log_statement = 'all'",
        f"SET ROLE {other}",
        f"DROP DATABASE {other}",
        "SELECT rolpassword FROM pg_authid",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "COPY (SELECT 1) TO '/tmp/out'",
        "SELECT pg_read_file('postgresql.conf')",
    ):
        with pytest.raises((errors.InsufficientPrivilege, errors.WrongObjectType)):
            mine.execute(statement)
