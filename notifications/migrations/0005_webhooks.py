"""Webhooks with their events and deliveries, what is known of the users, and the work items."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from extensions.storage import work_items
from extensions.storage.collations import KEY_COLLATION, set_collation

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TABLES = ("webhook_deliveries", "webhook_events", "webhooks", "recipients", "work_items")


def upgrade() -> None:
    """Create the tables. The users who are known from their registration become recipients."""
    op.add_column("notifications", sa.Column("in_app", sa.Boolean, nullable=False, server_default=sa.true()))
    work_items.create_table(op)
    set_collation(op, "work_items", ["key"])
    _create_recipients()
    _create_webhooks()
    _create_deliveries()
    op.execute(
        "INSERT INTO recipients (user_id, email)"
        " SELECT user_id, substring(body FROM '^Your account (.+@.+) is ready') FROM notifications"
        " WHERE kind = 'user.registered' ON CONFLICT DO NOTHING"
    )


def downgrade() -> None:
    """Drop them, with all webhooks and preferences."""
    for table in TABLES:
        op.drop_table(table)
    op.drop_column("notifications", "in_app")


def _create_recipients() -> None:
    op.create_table(
        "recipients",
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("email", sa.Text),
        sa.Column("language", sa.Text),
        sa.Column("is_admin", sa.Boolean, nullable=False, server_default=sa.false()),
        _time("changed_at", given=True),
        sa.Column("preferences", JSONB, nullable=False, server_default="{}"),
        _time("deleted_at", given=True),
        _time("created_at"),
        _time("updated_at"),
        sa.PrimaryKeyConstraint("user_id", name="pk_recipients"),
    )
    op.create_index("ix_recipients_user_id", "recipients", ["user_id"], postgresql_where=sa.text("is_admin"))


def _create_webhooks() -> None:
    op.create_table(
        "webhooks",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("events", sa.ARRAY(sa.Text), nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("secret", sa.Text, nullable=False),
        sa.Column("old_secret", sa.Text),
        _time("old_secret_expires_at", given=True),
        sa.Column("disabled_reason", sa.Text),
        _time("failing_since", given=True),
        sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
        _time("paused_until", given=True),
        _time("created_at"),
        _time("updated_at"),
        sa.PrimaryKeyConstraint("id", name="pk_webhooks"),
        sa.CheckConstraint("scope IN ('OWN', 'SHOP')", name="scope"),
        sa.CheckConstraint(
            "disabled_reason IN ('OWNER', 'GONE', 'FAILING', 'BACKLOG', 'NOT_ADMIN')", name="disabled_reason"
        ),
    )
    op.create_index("ix_webhooks_user_id_id", "webhooks", ["user_id", "id"])
    op.create_index("ix_webhooks_scope_id", "webhooks", ["scope", "id"])


def _create_deliveries() -> None:
    op.create_table(
        "webhook_events",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("user_id", sa.Uuid),
        sa.Column("event_type", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_events"),
    )
    op.create_index("ix_webhook_events_user_id_occurred_at", "webhook_events", ["user_id", "occurred_at"])
    op.create_index("ix_webhook_events_occurred_at", "webhook_events", ["occurred_at"])
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("webhook_id", sa.Uuid, nullable=False),
        sa.Column("event_id", sa.Uuid, nullable=False),
        sa.Column("event_type", sa.Text, nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.Text(collation=KEY_COLLATION), nullable=False, server_default="PENDING"),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        _time("next_attempt_at"),
        _time("last_attempt_at", given=True),
        sa.Column("response_status", sa.Integer),
        sa.Column("response_body", sa.Text),
        sa.Column("duration_ms", sa.Integer),
        sa.Column("error", sa.Text),
        _time("created_at"),
        _time("updated_at"),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_deliveries"),
        sa.UniqueConstraint("webhook_id", "event_id", name="uq_webhook_deliveries_webhook_id_event_id"),
        sa.CheckConstraint("state IN ('PENDING', 'DELIVERED', 'FAILED')", name="state"),
    )
    op.create_index("ix_webhook_deliveries_webhook_id_id", "webhook_deliveries", ["webhook_id", "id"])
    op.create_index("ix_webhook_deliveries_webhook_id_state_id", "webhook_deliveries", ["webhook_id", "state", "id"])
    op.create_index(
        "ix_webhook_deliveries_due",
        "webhook_deliveries",
        ["webhook_id", "next_attempt_at"],
        postgresql_where=sa.text("state = 'PENDING'"),
    )
    op.create_index("ix_webhook_deliveries_occurred_at", "webhook_deliveries", ["occurred_at"])


def _time(name: str, *, given: bool = False) -> sa.Column:
    if given:
        return sa.Column(name, sa.DateTime(timezone=True))
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=sa.func.clock_timestamp())
