"""The tables of bulk imports."""

from alembic import op

from extensions.storage.import_tables import create_import_tables, drop_import_tables

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    create_import_tables(op)


def downgrade() -> None:
    """Drop them."""
    drop_import_tables(op)
