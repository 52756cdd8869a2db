"""The collation C for the keys of the messaging tables and of the work items."""

from alembic import op

from extensions.storage.collations import DEFAULT_COLLATION, set_collation
from extensions.storage.migrations import drop_collations, state_collations

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """State the collations; this builds the indexes on these columns anew."""
    state_collations(op)
    set_collation(op, "work_items", ["key"])


def downgrade() -> None:
    """Use the collation of the database."""
    set_collation(op, "work_items", ["key"], DEFAULT_COLLATION)
    drop_collations(op)
