"""The payment method of an order."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column. The default does not rewrite the table, and the previous version can still insert."""
    op.add_column("orders", sa.Column("payment_method", sa.Text(), nullable=False, server_default="pm_ok"))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("orders", "payment_method")
