"""The time at which a product got its stock record: the sort key of the list, for ids of any kind."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column, with the time of the first entry in the ledger for what is there."""
    now = sa.func.clock_timestamp()
    op.add_column("stock", sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=now))
    op.execute(
        "UPDATE stock SET created_at = coalesce("
        "(SELECT min(created_at) FROM movements WHERE movements.product_id = stock.product_id), updated_at)"
    )
    op.create_index("ix_stock_created_at_product_id", "stock", ["created_at", "product_id"])


def downgrade() -> None:
    """Drop both."""
    op.drop_index("ix_stock_created_at_product_id", "stock")
    op.drop_column("stock", "created_at")
