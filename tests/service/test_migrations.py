"""The models and the migrated databases of all services agree."""

import os
from importlib import import_module
from pathlib import Path

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations

from contracts.services import SERVICES
from extensions.storage import migrations
from extensions.storage.migrations import STEPS
from extensions.storage.tables import service_metadata
from tests.support import database

ROOT = Path(__file__).resolve().parents[2]
# Columns that this version does not use. The previous version writes them and still runs during the rollout of this
# version, so the next version drops them.
LEFT_OVER = {"users": [("users", "registration_key")]}


def metadata_of(service):
    return import_module(f"{service}.models").Base.metadata


@pytest.mark.parametrize("service", SERVICES)
def test_models_and_migrations_agree(servers, service):
    with database(service).connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        differences = compare_metadata(context, metadata_of(service))
    left_over = [(difference[2], difference[3].name) for difference in differences if difference[0] == "remove_column"]
    assert left_over == LEFT_OVER.get(service, [])
    assert len(differences) == len(left_over), advice(service, differences)


def advice(service, differences):
    """What differs, in words, and what to do."""
    revision = f".venv/bin/python -m deploy.alembic {service} revision --autogenerate --message ..."
    first = f"It creates the tables of every service with `create_service_tables(op, version={len(STEPS)})`"
    return "\n".join(
        [
            f"{service}/models.py and {service}/migrations differ:",
            *(f"- {in_words(one)}" for one in flat(differences)),
            f"If {service} is released, add a revision: `{revision}` (CONTRIBUTING, A migration).",
            f"If it is new, correct its first revision. {first} (CONTRIBUTING, A service).",
        ]
    )


def flat(differences):
    """Yield each difference: Alembic puts those of one column in a list."""
    for one in differences:
        yield from flat(one) if isinstance(one, list) else [one]


def in_words(difference):
    """A difference as a sentence: what to add to the migrations, or what they have and the models lack."""
    kind, *about = difference
    verb, _, noun = kind.partition("_")
    if verb == "modify":
        _schema, table, column, *_, old, new = about
        return f"{noun} of {table}.{column}: the migrations have {old!r}, the models have {new!r}"
    thing = about[-1]
    table = about[1] if noun == "column" else getattr(getattr(thing, "table", None), "name", "")
    name = f"{noun} {table}.{thing.name}" if table else f"{noun} {thing.name}"
    return f"no migration creates the {name}" if verb == "add" else f"the models do not have the {name}"


@pytest.mark.parametrize("service", SERVICES)
def test_check_constraints_agree(servers, service):
    with database(service).connect() as connection:
        inspector = sqlalchemy.inspect(connection)
        for table in metadata_of(service).sorted_tables:
            rules = {rule.name for rule in table.constraints if isinstance(rule, sqlalchemy.CheckConstraint)}
            assert {rule["name"] for rule in inspector.get_check_constraints(table.name)} == rules, table.name


@pytest.fixture
def new_database(servers):
    """An Alembic context on an empty database. It is not dropped, because that would wait for a checkpoint."""
    address, name = sqlalchemy.make_url(servers.postgres.administrator_url()), f"new_{os.urandom(4).hex()}"
    with sqlalchemy.create_engine(address, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    with sqlalchemy.create_engine(address.set(database=name), poolclass=sqlalchemy.NullPool).connect() as connection:
        yield MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})


def test_a_new_service_gets_the_tables_of_every_service(new_database):
    op = Operations(new_database)
    migrations.create_service_tables(op, version=len(STEPS))
    assert compare_metadata(new_database, service_metadata()) == []
    migrations.drop_service_tables(op, version=len(STEPS))
    assert sqlalchemy.inspect(new_database.connection).get_table_names() == []


@pytest.mark.parametrize("version", [0, len(STEPS) + 1])
def test_a_version_that_does_not_exist_is_refused(version):
    with pytest.raises(ValueError, match=f"have the versions 1 to {len(STEPS)}"):
        migrations.create_service_tables(None, version=version)


def test_the_guide_names_the_current_version():
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    assert f"`create_service_tables(op, version={len(STEPS)})`" in guide


def test_a_difference_is_reported_in_words(new_database):
    metadata = service_metadata()
    migrations.create_service_tables(Operations(new_database), version=1)
    metadata.tables["outbox"].c.body.nullable = True
    told = advice("shipping", compare_metadata(new_database, metadata))
    assert "- no migration creates the table timers\n" in told
    assert "- no migration creates the column dead_letters.is_forged\n" in told
    assert "- no migration creates the index outbox.ix_outbox_refused\n" in told
    assert "- nullable of outbox.body: the migrations have False, the models have True\n" in told
    assert f"`create_service_tables(op, version={len(STEPS)})`" in told
