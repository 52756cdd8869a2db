"""Refunds, in full and in part; the calls of the provider that have ended."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

STATUSES = "'PENDING', 'AUTHORIZED', 'FAILED', 'CAPTURED', 'VOIDED'"
WITHIN = (
    "0 <= refunded_amount AND refunded_amount <= refund_requested_amount"
    " AND refund_requested_amount <= coalesce(amount, 0)"
)


def upgrade() -> None:
    """Add the tables and columns, and a refund for each payment that was refunded before. No table is rewritten."""
    op.add_column("payments", _sum("refund_requested_amount"))
    op.add_column("payments", _sum("refunded_amount"))
    _set_statuses(f"{STATUSES}, 'PARTIALLY_REFUNDED', 'REFUNDED', 'CANCELLED_BEFORE'")
    op.execute(
        "UPDATE payments SET refund_requested_amount = amount, refunded_amount = amount WHERE status = 'REFUNDED'"
    )
    op.create_check_constraint("refunds_within_amount", "payments", WITHIN)
    op.create_index(
        "ix_payments_refund_pending",
        "payments",
        ["id"],
        postgresql_where=sa.text("refunded_amount < refund_requested_amount"),
    )
    _create_refunds()
    # The id of the payment serves as the id of its refund: no other function of PostgreSQL makes ids sorted by time.
    op.execute(
        "INSERT INTO refunds (id, payment_id, amount, status, provider_key, cause_request_id, cause_traceparent,"
        " created_at, completed_at)"
        " SELECT id, id, amount, 'SUCCEEDED', order_id || '\\:refund', cause_request_id, cause_traceparent, updated_at,"
        " updated_at FROM payments WHERE status = 'REFUNDED'"
    )
    op.create_table(
        "provider_attempts",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("payment_id", sa.Uuid, nullable=False),
        sa.Column("operation", sa.Text, nullable=False),
        sa.Column("refund_id", sa.Uuid),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("duration_ms", sa.Integer, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("detail", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_provider_attempts"),
    )
    op.create_index("ix_provider_attempts_payment_id_id", "provider_attempts", ["payment_id", "id"])


def downgrade() -> None:
    """Drop them. Impossible while a payment is PARTIALLY_REFUNDED: the previous version has no such status."""
    op.drop_table("provider_attempts")
    op.drop_table("refunds")
    op.drop_index("ix_payments_refund_pending", "payments")
    op.drop_constraint("refunds_within_amount", "payments", type_="check")
    _set_statuses(f"{STATUSES}, 'REFUNDED', 'CANCELLED_BEFORE'")
    op.drop_column("payments", "refunded_amount")
    op.drop_column("payments", "refund_requested_amount")


def _create_refunds() -> None:
    op.create_table(
        "refunds",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("payment_id", sa.Uuid, nullable=False),
        sa.Column("amount", sa.Numeric(12, 2), nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("requested_by", sa.Uuid),
        sa.Column("provider_key", sa.Text(collation="C"), nullable=False),
        sa.Column("provider_reference", sa.Text),
        sa.Column("cause_request_id", sa.Text, nullable=False),
        sa.Column("cause_traceparent", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.clock_timestamp()),
        sa.Column("completed_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_refunds"),
        sa.UniqueConstraint("provider_key", name="uq_refunds_provider_key"),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name="fk_refunds_payment_id"),
        sa.CheckConstraint("status IN ('PENDING', 'SUCCEEDED')", name="status"),
        sa.CheckConstraint("(status = 'SUCCEEDED') = (completed_at IS NOT NULL)", name="completed_at"),
        sa.CheckConstraint("amount >= 0", name="amount"),
    )
    op.create_index("ix_refunds_payment_id_id", "refunds", ["payment_id", "id"])


def _sum(name: str) -> sa.Column:
    return sa.Column(name, sa.Numeric(12, 2), nullable=False, server_default="0")


def _set_statuses(statuses: str) -> None:
    op.drop_constraint("status", "payments", type_="check")
    op.create_check_constraint("status", "payments", f"status IN ({statuses})")
