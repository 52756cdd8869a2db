"""The collation C for the keys of the messaging tables: no upgrade of the C library can change their order."""

from alembic import op

from extensions.storage.migrations import drop_collations, state_collations

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """State the collations; this builds the indexes on these columns anew."""
    state_collations(op)


def downgrade() -> None:
    """Use the collation of the database."""
    drop_collations(op)
