"""The models and the migrated databases of all services agree."""

from importlib import import_module

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from contracts.services import SERVICES
from tests.support import database

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
    assert len(differences) == len(left_over), differences


@pytest.mark.parametrize("service", SERVICES)
def test_check_constraints_agree(servers, service):
    with database(service).connect() as connection:
        inspector = sqlalchemy.inspect(connection)
        for table in metadata_of(service).sorted_tables:
            rules = {rule.name for rule in table.constraints if isinstance(rule, sqlalchemy.CheckConstraint)}
            assert {rule["name"] for rule in inspector.get_check_constraints(table.name)} == rules, table.name
