"""Why the broker did not take an event; whether a dead letter was forged."""

from alembic import op

from extensions.storage.migrations import add_refusals, drop_refusals

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    add_refusals(op)


def downgrade() -> None:
    """Drop them."""
    drop_refusals(op)
