"""The collation C for the keys of notifications and messaging: no upgrade of the C library can change their order."""

from alembic import op

from extensions.storage.collations import DEFAULT_COLLATION, set_collation
from extensions.storage.migrations import drop_collations, state_collations

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """State the collations; this builds the indexes on these columns anew."""
    state_collations(op)
    set_collation(op, "notifications", ["kind"])


def downgrade() -> None:
    """Use the collation of the database."""
    set_collation(op, "notifications", ["kind"], DEFAULT_COLLATION)
    drop_collations(op)
