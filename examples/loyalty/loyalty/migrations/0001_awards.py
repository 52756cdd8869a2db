"""Points, and the tables of every service."""

import sqlalchemy as sa
from alembic import op

from extensions.storage.migrations import create_service_tables, drop_service_tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create everything."""
    create_service_tables(op, version=5)
    op.create_table(
        "awards",
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("points", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("order_id", name="pk_awards"),
    )
    op.create_index("ix_awards_user_id", "awards", ["user_id"])


def downgrade() -> None:
    """Drop everything."""
    op.drop_table("awards")
    drop_service_tables(op, version=5)
