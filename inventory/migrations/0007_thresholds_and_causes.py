"""Thresholds of low stock; who and what caused an entry of the ledger."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns. No table is rewritten, and the ledger is not read."""
    op.add_column("stock", sa.Column("low_stock", sa.BigInteger))
    op.add_column("stock", sa.Column("is_low", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_check_constraint("low_stock", "stock", "low_stock >= 0")
    op.add_column("movements", sa.Column("actor_id", sa.Uuid))
    op.add_column("movements", sa.Column("event_id", sa.Uuid))
    op.add_column("movements", sa.Column("request_id", sa.Text))


def downgrade() -> None:
    """Drop them."""
    op.drop_column("movements", "request_id")
    op.drop_column("movements", "event_id")
    op.drop_column("movements", "actor_id")
    op.drop_constraint("low_stock", "stock", type_="check")
    op.drop_column("stock", "is_low")
    op.drop_column("stock", "low_stock")
