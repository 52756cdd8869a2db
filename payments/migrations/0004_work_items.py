"""Calls of the provider become work items; the payment method; captures that the provider has not done yet."""

import sqlalchemy as sa
from alembic import op

from extensions.storage import work_items
from extensions.storage.migrations import require_stopped

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

REASON = "version 0.1.0 would void payments that this version captures at the same time"


def upgrade() -> None:
    """Create the table with an item for each pending payment, and the columns. No table is rewritten."""
    require_stopped(op, REASON)
    op.add_column("payments", sa.Column("payment_method", sa.Text(), nullable=False, server_default="pm_ok"))
    op.add_column("payments", sa.Column("capture_requested", sa.Boolean(), nullable=False, server_default=sa.false()))
    work_items.create_table(op)
    op.execute(
        "INSERT INTO work_items (key, kind)"
        " SELECT id, CASE WHEN cancel_requested THEN 'settlement' ELSE 'authorisation' END"
        " FROM payments WHERE status = 'PENDING'"
    )


def downgrade() -> None:
    """Drop them. Captures, voids and refunds that wait are lost: let them finish first."""
    op.drop_table("work_items")
    op.drop_column("payments", "capture_requested")
    op.drop_column("payments", "payment_method")
