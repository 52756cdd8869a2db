"""The table of timers, and a column for the operator who replayed a dead letter."""

from alembic import op

from extensions.storage.migrations import create_timers, drop_timers

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table and the column."""
    create_timers(op)


def downgrade() -> None:
    """Drop them."""
    drop_timers(op)
