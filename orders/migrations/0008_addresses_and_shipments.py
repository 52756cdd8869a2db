"""Shipping addresses, carriers and tracking numbers; an accepted order is settled although its payment was refunded."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

SETTLED = "payment_status NOT IN ('CAPTURED', 'PARTIALLY_REFUNDED', 'REFUNDED')"
UNRETURNED = "'AUTHORIZED', 'CAPTURED', 'PARTIALLY_REFUNDED'"


def upgrade() -> None:
    """Add the columns, and build the index of unsettled orders anew. The table is read once, and not rewritten."""
    op.add_column("orders", sa.Column("shipping_address", JSONB))
    op.add_column("orders", sa.Column("carrier", sa.Text))
    op.add_column("orders", sa.Column("tracking_number", sa.Text))
    _index_unsettled(UNRETURNED, SETTLED)


def downgrade() -> None:
    """Drop the columns, and use the previous condition."""
    _index_unsettled("'AUTHORIZED', 'CAPTURED'", "payment_status <> 'CAPTURED'")
    op.drop_column("orders", "tracking_number")
    op.drop_column("orders", "carrier")
    op.drop_column("orders", "shipping_address")


def _index_unsettled(unreturned: str, unsettled: str) -> None:
    op.drop_index("ix_orders_unsettled", "orders")
    op.create_index(
        "ix_orders_unsettled",
        "orders",
        ["id"],
        postgresql_where=sa.text(
            "status = 'CREATED'"
            " OR status = 'CANCELLED' AND (stock_status IN ('RESERVED', 'COMMITTED')"
            f" OR payment_status IN ({unreturned}))"
            " OR status IN ('CONFIRMED', 'SHIPPED', 'DELIVERED')"
            f" AND (stock_status <> 'COMMITTED' OR {unsettled})"
        ),
    )
