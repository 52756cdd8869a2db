"""Orders, their items and their timeline."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from extensions.storage.migrations import create_messaging_tables, drop_messaging_tables

revision = "0001"
down_revision = None

NOW = sa.text("clock_timestamp()")


def upgrade():
    create_messaging_tables(op)
    op.create_table(
        "orders",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("cancel_reason", sa.Text),
        sa.Column("total_amount", sa.Numeric(12, 2), nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("stock_status", sa.Text, nullable=False),
        sa.Column("payment_status", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.PrimaryKeyConstraint("id", name="pk_orders"),
        sa.CheckConstraint(
            "status IN ('CREATED', 'CONFIRMED', 'SHIPPED', 'DELIVERED', 'CANCELLED')", name="status_known"
        ),
        sa.CheckConstraint(
            "cancel_reason IN ('OUT_OF_STOCK', 'PAYMENT_FAILED', 'TIMEOUT', 'USER', 'ADMIN')",
            name="cancel_reason_known",
        ),
        sa.CheckConstraint("(status = 'CANCELLED') = (cancel_reason IS NOT NULL)", name="cancelled_for_a_reason"),
        sa.CheckConstraint("total_amount >= 0", name="total_not_negative"),
    )
    op.create_index("ix_orders_user_id_id", "orders", ["user_id", "id"])
    op.create_index("ix_orders_status_id", "orders", ["status", "id"])
    op.create_index("ix_orders_created_at", "orders", ["created_at"])
    op.create_index("ix_orders_undecided", "orders", ["deadline_at"], postgresql_where=sa.text("status = 'CREATED'"))
    op.create_index(
        "ix_orders_unsettled",
        "orders",
        ["id"],
        postgresql_where=sa.text(
            "status = 'CREATED'"
            " OR status = 'CANCELLED' AND (stock_status IN ('RESERVED', 'COMMITTED')"
            " OR payment_status IN ('AUTHORIZED', 'CAPTURED'))"
            " OR status IN ('CONFIRMED', 'SHIPPED', 'DELIVERED')"
            " AND (stock_status <> 'COMMITTED' OR payment_status <> 'CAPTURED')"
        ),
    )
    op.create_table(
        "order_items",
        sa.Column("order_id", sa.Uuid, nullable=False),
        sa.Column("line", sa.Integer, nullable=False),
        sa.Column("product_id", sa.Uuid, nullable=False),
        sa.Column("product_sku", sa.Text, nullable=False),
        sa.Column("quantity", sa.Integer, nullable=False),
        sa.Column("price_snapshot", sa.Numeric(12, 2), nullable=False),
        sa.PrimaryKeyConstraint("order_id", "line", name="pk_order_items"),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name="fk_order_items_order_id"),
        sa.CheckConstraint("quantity > 0", name="quantity_positive"),
        sa.CheckConstraint("price_snapshot >= 0", name="price_not_negative"),
    )
    op.create_table(
        "timeline",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("order_id", sa.Uuid, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("event_id", sa.Uuid, nullable=False),
        sa.Column("service", sa.Text, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.Column("data", JSONB, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_timeline"),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name="fk_timeline_order_id"),
        sa.UniqueConstraint("event_id", name="uq_timeline_event_id"),
    )
    op.create_index("ix_timeline_order_id_id", "timeline", ["order_id", "id"])


def downgrade():
    op.drop_table("timeline")
    op.drop_table("order_items")
    op.drop_table("orders")
    drop_messaging_tables(op)
