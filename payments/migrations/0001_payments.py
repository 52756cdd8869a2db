"""Payments, and the messaging tables."""

import sqlalchemy as sa
from alembic import op

from extensions.storage.migrations import create_messaging_tables, drop_messaging_tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create everything."""
    create_messaging_tables(op)
    op.create_table(
        "payments",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("amount", sa.Numeric(12, 2), nullable=True),
        sa.Column("currency", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("transaction_reference", sa.Text(), nullable=True),
        sa.Column("failure_reason", sa.Text(), nullable=True),
        sa.Column("cause_message_id", sa.Uuid(), nullable=False),
        sa.Column("cause_request_id", sa.Text(), nullable=False),
        sa.Column("cause_traceparent", sa.Text(), nullable=False),
        _time("created_at"),
        _time("updated_at"),
        sa.PrimaryKeyConstraint("id", name="pk_payments"),
        sa.UniqueConstraint("order_id", name="uq_payments_order_id"),
        sa.CheckConstraint(
            "status IN ('PENDING', 'AUTHORIZED', 'FAILED', 'CAPTURED', 'VOIDED', 'REFUNDED', 'CANCELLED_BEFORE')",
            name="status",
        ),
        sa.CheckConstraint("(status = 'CANCELLED_BEFORE') = (amount IS NULL)", name="tombstone_has_no_amount"),
        sa.CheckConstraint("(amount IS NULL) = (currency IS NULL)", name="amount_has_a_currency"),
        sa.CheckConstraint("amount >= 0", name="amount"),
    )
    op.create_index("ix_payments_user_id_id", "payments", ["user_id", "id"])
    op.create_index("ix_payments_status_id", "payments", ["status", "id"])


def downgrade() -> None:
    """Drop everything."""
    op.drop_table("payments")
    drop_messaging_tables(op)


def _time(name: str) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=sa.func.clock_timestamp())
