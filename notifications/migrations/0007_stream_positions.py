"""The transaction that wrote a notification: its place in the stream of its user."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

CURRENT = "(pg_current_xact_id()::text)::bigint"


def upgrade() -> None:
    """Add the column. Rows that exist have none: to fill them in would write the whole table."""
    op.add_column("notifications", sa.Column("xact", sa.BigInteger))
    op.alter_column("notifications", "xact", server_default=sa.text(CURRENT))
    op.create_index(
        "ix_notifications_stream",
        "notifications",
        ["user_id", "xact", "id"],
        postgresql_where=sa.text("xact IS NOT NULL"),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_index("ix_notifications_stream", "notifications")
    op.drop_column("notifications", "xact")
