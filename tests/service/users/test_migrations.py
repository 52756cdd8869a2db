from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from tests.support import database
from users.models import Base


def test_models_and_migrations_agree(servers):
    with database("users").connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
