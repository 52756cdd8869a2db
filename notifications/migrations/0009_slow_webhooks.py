"""Until when an endpoint counts as slow. Those that exist have shown how fast they respond."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("webhooks", sa.Column("slow_until", sa.DateTime(timezone=True)))


def downgrade() -> None:
    """Drop it. Items of a kind that the previous version does not know become ordinary ones."""
    op.execute("UPDATE work_items SET kind = 'webhooks' WHERE kind = 'slow_webhooks'")
    op.drop_column("webhooks", "slow_until")
