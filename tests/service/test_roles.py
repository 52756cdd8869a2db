"""Each service's role of PostgreSQL may read and write rows in its own database, and do nothing else."""

import os
import subprocess
import sys
from contextlib import closing, contextmanager
from importlib import import_module
from types import SimpleNamespace

import psycopg2
import pytest
from alembic import command
from psycopg2 import errors
from sqlalchemy.engine import make_url

from contracts.services import SERVICES
from deploy.databases import Database, make
from deploy.migrate import MigrationError, alembic_config, revisions, upgrade
from deploy.server_users import ADMINISTRATOR_DATABASE
from extensions.runtime.addresses import database_variable, owner_variable
from extensions.storage import migrations
from extensions.storage.tables import privileges

APPENDED = {"SELECT", "INSERT"}
CHANGED = APPENDED | {"UPDATE"}
FORGOTTEN = CHANGED | {"DELETE"}
EVERYWHERE = {
    "outbox": FORGOTTEN,
    "inbox": FORGOTTEN,
    "dead_letters": FORGOTTEN,
    "idempotency_keys": FORGOTTEN,
    "timers": CHANGED,
}
PERMANENT = {"orders": {"order_items", "timeline"}, "inventory": {"reservation_lines", "movements"}}


def meant(service):
    """The permitted operations of a service on each of its own tables, as its models state them."""
    tables = import_module(f"{service}.models").Base.metadata.sorted_tables
    return {one.name: set(privileges(one)) for one in tables if one.name not in EVERYWHERE}


# All privileges of roles other than the owner, on tables, views and sequences.
GRANTS = """
    SELECT relname, privilege_type FROM pg_class, aclexplode(relacl)
    WHERE relnamespace = 'public'::regnamespace AND grantee <> relowner
"""


@pytest.fixture(params=SERVICES)
def me(request):
    """A service whose password is known to an attacker."""
    return request.param


def plain(url):
    return url.replace("+psycopg2", "")


def url(environment, service):
    return plain(environment[database_variable(service)])


def connect(address):
    connection = psycopg2.connect(plain(address))
    connection.autocommit = True
    return closing(connection)


@pytest.fixture
def mine(environment, me):
    with connect(url(environment, me)) as connection:
        yield connection.cursor()


def test_a_service_cannot_connect_to_other_databases(environment, me):
    for other in {*SERVICES, "postgres", "template1"} - {me}:
        elsewhere = url(environment, me).rpartition("/")[0] + f"/{other}"
        with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
            psycopg2.connect(elsewhere)


def test_an_owner_can_connect_only_to_its_own_database(environment, me):
    for other in {*SERVICES, "postgres", "template1"} - {me}:
        elsewhere = plain(environment[owner_variable(me)]).rpartition("/")[0] + f"/{other}"
        with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
            psycopg2.connect(elsewhere)


def test_a_password_is_valid_for_one_role_only(environment, me):
    for other in {*SERVICES, f"{me}_owner"} - {me}:
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            psycopg2.connect(url(environment, me).replace(f"//{me}:", f"//{other}:"))


def test_a_service_cannot_gain_privileges(mine, me):
    mine.execute(
        "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls FROM pg_roles"
        " WHERE rolname = current_user"
    )
    assert mine.fetchone() == (False,) * 5
    mine.execute("SELECT count(*) FROM pg_auth_members WHERE member = current_user::regrole")
    assert mine.fetchone() == (0,)
    other = next(service for service in SERVICES if service != me)
    for statement in (
        "CREATE ROLE another LOGIN SUPERUSER",
        "CREATE DATABASE another",
        "ALTER SYSTEM SET log_statement = 'all'",
        f"SET ROLE {other}",
        f"SET ROLE {me}_owner",
        f"DROP DATABASE {other}",
        "SELECT rolpassword FROM pg_authid",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "COPY (SELECT 1) TO '/tmp/out'",
        "SELECT pg_read_file('postgresql.conf')",
    ):
        with pytest.raises((errors.InsufficientPrivilege, errors.WrongObjectType)):
            mine.execute(statement)


def test_a_service_cannot_change_tables(mine, me):
    for table in (*meant(me), *EVERYWHERE, "alembic_version"):
        for statement in (
            f"ALTER TABLE {table} ADD COLUMN more int",
            f"ALTER TABLE {table} DISABLE TRIGGER ALL",
            f"CREATE INDEX ON {table} ((1))",
            f"CREATE TRIGGER more BEFORE INSERT ON {table} EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            f"ALTER TABLE {table} OWNER TO {me}",
            f"TRUNCATE {table} CASCADE",
            f"DROP TABLE {table} CASCADE",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                mine.execute(statement)


def test_a_service_cannot_add_objects_to_its_database(mine, me):
    for statement in (
        "CREATE TABLE more (number int)",
        "CREATE TEMPORARY TABLE more (number int)",
        "CREATE VIEW more AS SELECT 1",
        "CREATE FUNCTION more() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE SCHEMA more",
        "CREATE EXTENSION hstore",
        f"ALTER DATABASE {me} SET work_mem = '1GB'",
        f"DROP DATABASE {me}",
    ):
        with pytest.raises(errors.InsufficientPrivilege):
            mine.execute(statement)


def test_a_service_has_exactly_the_intended_privileges_on_each_table(mine, me):
    mine.execute(GRANTS)
    granted = {}
    for table, privilege in mine.fetchall():
        granted.setdefault(table, set()).add(privilege)
    assert granted == meant(me) | EVERYWHERE


def test_history_can_only_be_appended_to():
    for service, tables in PERMANENT.items():
        assert {table: meant(service)[table] for table in tables} == dict.fromkeys(tables, APPENDED)


def test_a_service_cannot_grant_its_privileges(mine, me):
    mine.execute(GRANTS)
    before = set(mine.fetchall())
    for table in meant(me):
        mine.execute(f"GRANT SELECT, INSERT ON {table} TO PUBLIC")  # only causes a warning
    mine.execute(GRANTS)
    assert set(mine.fetchall()) == before


def test_permanent_rows_cannot_be_deleted_and_history_cannot_be_changed(mine, me):
    for table, allowed in meant(me).items():
        mine.execute(f"SELECT FROM {table} LIMIT 1")
        for privilege, statement in {
            "DELETE": f"DELETE FROM {table}",
            "UPDATE": f"SELECT FROM {table} FOR UPDATE",
        }.items():
            if privilege not in allowed:
                with pytest.raises(errors.InsufficientPrivilege):
                    mine.execute(statement)


@pytest.fixture
def earlier(servers):
    """A database of version 0.1 with a product in it: the role of the service owns everything, including its tables.

    It is not dropped, because that would wait for a checkpoint. It goes with the data of the servers.
    """
    name = f"earlier_{os.urandom(4).hex()}"
    own, owner = servers.postgres.url(name), servers.postgres.url(f"{name}_owner", name)
    with connect(servers.postgres.administrator_url()) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{name}'")
        cursor.execute(f"CREATE DATABASE {name} OWNER {name}")
        cursor.execute(f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC")
    upgrade(Database("catalog", own, own))
    with connect(own) as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO products (id, sku, name, description, price, currency, is_active, version)"
            " VALUES (gen_random_uuid(), 'OLD', 'Old', '', 1, 'TRY', true, 1)"
        )
        cursor.execute("ALTER TABLE products ALTER COLUMN name SET STATISTICS 100")  # only an owner can do this
    return Database("catalog", own, owner)


def test_a_database_of_an_earlier_version_is_migrated_while_in_use(servers, earlier):
    with connect(earlier.url) as service, service.cursor() as mine:
        mine.execute("SELECT sku FROM products")
        for _start in range(2):
            make(servers.postgres.administrator_url(), [earlier])
            mine.execute("UPDATE products SET price = 3 WHERE sku = 'OLD'")  # also before the migrations
            assert upgrade(earlier)[0] is not None
            with connect(earlier.url) as restarted, restarted.cursor() as again:
                again.execute("SELECT sku FROM products")
        mine.execute("UPDATE products SET price = 2 RETURNING sku")
        assert mine.fetchall() == [("OLD",)]
        mine.execute(GRANTS)
        assert set(mine.fetchall()) == {
            (table, privilege) for table, allowed in (meant("catalog") | EVERYWHERE).items() for privilege in allowed
        }
        for statement in ("DELETE FROM products", "ALTER TABLE products ADD COLUMN more int", "CREATE TABLE more ()"):
            with pytest.raises(errors.InsufficientPrivilege):
                mine.execute(statement)
    with connect(earlier.owner_url) as connection, connection.cursor() as owners:
        owners.execute("ALTER TABLE products ADD COLUMN more int")
        owners.execute("SELECT relname FROM pg_class WHERE relowner = %s::regrole", [make_url(earlier.url).username])
        assert owners.fetchall() == []


@pytest.fixture
def impatient(monkeypatch):
    """Migrations that wait briefly for a lock. Returns what is called between two tries, a list."""
    between = []
    monkeypatch.setattr(migrations, "LOCK_TIMEOUT", "200ms")
    monkeypatch.setattr(migrations, "TRIES", 3)
    monkeypatch.setattr(migrations, "time", SimpleNamespace(sleep=lambda _seconds: [call() for call in between]))
    return between


@pytest.fixture
def outdated(servers, earlier):
    """A database whose last migration, which changes the outbox, is missing."""
    make(servers.postgres.administrator_url(), [earlier])
    upgrade(earlier)
    command.downgrade(alembic_config(earlier), "0002")
    return earlier


@contextmanager
def outbox_in_use(database):
    with connect(database.url) as session, session.cursor() as cursor:
        session.autocommit = False
        cursor.execute("SELECT FROM outbox FOR UPDATE")
        yield session


def test_a_migration_that_waits_for_a_lock_gives_way_and_names_the_table(outdated, impatient):
    count = "SET lock_timeout = '5s'; SELECT count(*) FROM outbox"
    with outbox_in_use(outdated) as holder, connect(outdated.url) as other, other.cursor() as mine:
        impatient.append(lambda: mine.execute(count))  # between the tries nothing waits behind the migration
        with pytest.raises(MigrationError, match=rf"catalog: .* outbox by the session {holder.info.backend_pid} of"):
            upgrade(outdated)
        assert mine.fetchall() == [(0,)]


def test_a_migration_goes_on_when_the_lock_is_gone(outdated, impatient):
    with outbox_in_use(outdated) as holder:
        impatient.append(holder.rollback)
        assert upgrade(outdated) == ("0002", revisions("catalog")[-1].name[:4])


def test_a_changed_password_is_valid_from_the_next_start(servers, earlier):
    changed = Database(earlier.service, earlier.url.replace(":earlier_", ":it's%2Fnew_"), earlier.owner_url)
    make(servers.postgres.administrator_url(), [changed])
    with connect(changed.url) as connection, connection.cursor() as mine:
        mine.execute("SELECT")
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        connect(earlier.url)


def test_databases_on_another_server_are_not_changed(servers, earlier):
    elsewhere = earlier.url.replace("127.0.0.1", "db.example")
    assert make(servers.postgres.administrator_url(), [Database("catalog", elsewhere, elsewhere)]) == []
    with connect(earlier.url) as connection, connection.cursor() as still_owner:
        still_owner.execute("CREATE TABLE more ()")


def test_the_first_job_of_compose_creates_the_databases_of_the_addresses(servers, environment):
    env = os.environ | environment | {ADMINISTRATOR_DATABASE: servers.postgres.administrator_url()}
    command = [sys.executable, "-W", "ignore", "-m", "deploy.databases"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"databases and roles exist: {', '.join(SERVICES)}\n"
    wrong = env | {ADMINISTRATOR_DATABASE: servers.postgres.url("users", "postgres")}
    refused = subprocess.run(command, env=wrong, capture_output=True, text=True, check=False, timeout=60)
    assert refused.returncode == 1
    assert "permission denied" in refused.stderr
