"""Text is in the same order in every database, and no upgrade of the C library changes the order of a unique index."""

# ruff: noqa: RUF001 - the dotless i is meant

import os
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from catalog.models import Base
from contracts.services import SERVICES
from deploy import migrate
from deploy.databases import Database, make
from tests.support import database

ROOT = Path(__file__).parents[2]
COLUMNS = text(
    "SELECT relname, attname, collname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid"
    " JOIN pg_collation ON pg_collation.oid = attcollation"
    " WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped"
    " AND atttypid = 'text'::regtype"
)
UNIQUE_TEXTS = text(
    "SELECT DISTINCT indexrelid::regclass::text, collname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid"
    " JOIN pg_collation ON pg_collation.oid = ANY(indcollation)"
    " WHERE indisunique AND relnamespace = 'public'::regnamespace"
)
IN_ORDER = ["Apfel", "apple", "Banana", "ça", "cherry", "Çilek", "cz", "İzmir", "ılık", "Zebra"]


@pytest.mark.parametrize("service", SERVICES)
def test_the_models_state_the_collations(servers, service):
    tables = import_module(f"{service}.models").Base.metadata.tables
    with database(service).connect() as connection:
        found = {(table, column): name for table, column, name in connection.execute(COLUMNS)}
    stated = {
        (table.name, column.name): getattr(column.type, "collation", None) or "default"
        for table in tables.values()
        for column in table.columns
        if isinstance(column.type, sqlalchemy.Text)
    }
    assert {key: found[key] for key in stated} == stated


@pytest.mark.parametrize("service", SERVICES)
def test_unique_texts_are_in_the_order_of_bytes(servers, service):
    with database(service).connect() as connection:
        found = dict(connection.execute(UNIQUE_TEXTS).all())
    found.pop("alembic_version_pkc")  # Alembic's own, one row
    assert {"pk_inbox", "pk_idempotency_keys", "pk_timers"} <= set(found)
    assert set(found.values()) == {"C"}


@pytest.mark.parametrize("service", SERVICES)
def test_a_database_has_a_stated_locale(servers, service):
    with database(service).connect() as connection:
        locale = connection.execute(
            text(
                "SELECT datcollate, datctype, datlocprovider, pg_encoding_to_char(encoding) FROM pg_database"
                " WHERE datname = current_database()"
            )
        ).one()
    assert tuple(locale) == ("C", "C.UTF-8", "c", "UTF8")


@contextmanager
def new_catalog(servers, options, name_locale="und"):
    """A migrated database of catalog with another locale, and an engine of the superuser. It is not dropped."""
    name = f"collations_{os.urandom(4).hex()}"
    administrator = sqlalchemy.make_url(servers.postgres.administrator_url())
    with sqlalchemy.create_engine(administrator, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text(f"CREATE ROLE {name} LOGIN PASSWORD '{name}'"))
        connection.execute(text(f"CREATE DATABASE {name} OWNER {name} TEMPLATE template0 ENCODING 'UTF8' {options}"))
    url = administrator.set(username=name, password=name, database=name).render_as_string(hide_password=False)
    catalog = Database("catalog", url, url, name_locale)
    administrators = administrator.set(database=name)
    make(administrator.render_as_string(hide_password=False), [catalog])
    migrate.upgrade(catalog)
    yield catalog, sqlalchemy.create_engine(administrators, poolclass=sqlalchemy.NullPool)


def add(connection, *names):
    for number, name in enumerate(names):
        connection.execute(
            text(
                "INSERT INTO products (id, sku, name, description, price, currency, is_active, version)"
                " VALUES (gen_random_uuid(), :sku, :name, '', 1, 'TRY', true, 1)"
            ),
            {"sku": f"{'aB'[number % 2]}-{number}", "name": name},
        )


def in_order(connection, column):
    return list(connection.scalars(text(f"SELECT {column} FROM products ORDER BY {column}, id")))


@pytest.mark.parametrize(
    "options",
    ["LOCALE 'C'", "LOCALE 'C.UTF-8'", "LOCALE 'C.UTF-8' LOCALE_PROVIDER icu ICU_LOCALE 'sv'"],
)
def test_the_order_is_the_same_in_every_database(servers, options):
    with new_catalog(servers, options) as (_, engine), engine.begin() as connection:
        add(connection, *IN_ORDER[::-1])
        assert in_order(connection, "name") == IN_ORDER
        assert in_order(connection, "sku") == sorted(in_order(connection, "sku"))


def test_the_locale_of_names_is_a_setting(servers):
    with new_catalog(servers, "LOCALE 'C'", "tr") as (_, engine), engine.begin() as connection:
        add(connection, "ça", "cz", "ilik", "ılık", "İzmir", "Iğdır")
        assert in_order(connection, "name") == ["cz", "ça", "Iğdır", "ılık", "ilik", "İzmir"]


def test_the_locale_of_names_can_be_changed_as_documented(servers):
    statements = (ROOT / "docs/operating.md").read_text().partition("```sql\nBEGIN;")[2].partition("COMMIT;")[0]
    with new_catalog(servers, "LOCALE 'C'") as (catalog, engine):
        with sqlalchemy.create_engine(catalog.owner_url).begin() as owner:
            owner.exec_driver_sql(statements)
        with engine.begin() as connection:
            add(connection, "ça", "cz")
            assert in_order(connection, "name") == ["cz", "ça"]
            differences = compare_metadata(MigrationContext.configure(connection), Base.metadata)
    assert differences == []


@pytest.mark.parametrize("locale", ["tr'", "tr TR", "x" * 9, "_"])
def test_a_wrong_locale_is_refused(servers, locale):
    with pytest.raises(ValueError, match="NAME_LOCALE"), new_catalog(servers, "LOCALE 'C'", locale):
        pass


def test_a_new_version_of_a_library_is_a_warning(servers, monkeypatch, capsys):
    with new_catalog(servers, "LOCALE 'C.UTF-8' LOCALE_PROVIDER icu ICU_LOCALE 'und'") as (catalog, engine):
        monkeypatch.setattr(migrate, "configured", lambda: {"catalog": catalog})
        migrate.migrate()
        assert "WARNING" not in capsys.readouterr().out
        with engine.begin() as connection:
            name = connection.scalar(text("SELECT current_database()"))
            connection.execute(text("UPDATE pg_collation SET collversion = '1.2' WHERE collname = 'names'"))
            connection.execute(text("UPDATE pg_database SET datcollversion = '3.4' WHERE datname = current_database()"))
        migrate.migrate()
        told = capsys.readouterr().out
        assert "catalog: WARNING: the collation names was created with version 1.2 of its library" in told
        assert "ALTER COLLATION names REFRESH VERSION" in told
        assert f"catalog: WARNING: the locale of the database {name} was created with version 3.4" in told
        assert f"REINDEX DATABASE {name}; then ALTER DATABASE {name} REFRESH COLLATION VERSION" in told
        for advice in [line.partition("As the owner: ")[2] for line in told.splitlines() if "WARNING" in line]:
            with sqlalchemy.create_engine(catalog.owner_url, isolation_level="AUTOCOMMIT").connect() as owner:
                for statement in advice.split("; then "):
                    owner.execute(text(statement))
        migrate.migrate()
        assert "WARNING" not in capsys.readouterr().out
