"""What the event log lacks."""

from alembic import op

from extensions.storage.migrations import create_unlogged_events, drop_unlogged_events

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    create_unlogged_events(op)


def downgrade() -> None:
    """Drop it."""
    drop_unlogged_events(op)
