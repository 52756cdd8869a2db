"""What the one who cancelled an order wrote."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column. The table is not rewritten."""
    op.add_column("orders", sa.Column("cancel_note", sa.Text))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("orders", "cancel_note")
