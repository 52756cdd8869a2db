"""Mails."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    now = sa.func.clock_timestamp()
    op.create_table(
        "mails",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("recipient", sa.Text),
        sa.Column("language", sa.Text),
        sa.Column("fields", JSONB),
        sa.Column("state", sa.Text, nullable=False, server_default="PENDING"),
        sa.Column("unsettled", sa.Integer, nullable=False, server_default="0"),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("error", sa.Text),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=now),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=now),
        sa.Column("sent_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_mails"),
        sa.CheckConstraint("state IN ('PENDING', 'SENT', 'FAILED')", name="state"),
    )
    op.create_index("ix_mails_user_id", "mails", ["user_id"])
    op.create_index("ix_mails_created_at", "mails", ["created_at"])


def downgrade() -> None:
    """Drop it. Mails that were not sent yet are lost."""
    op.drop_table("mails")
