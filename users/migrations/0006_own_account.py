"""The language of an account, whether its address is verified, its deletion, and the tokens of mails."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

NOW = sa.func.statement_timestamp()


def upgrade() -> None:
    """Add the columns and tables. No table is rewritten, and the previous version can still insert."""
    op.add_column("users", sa.Column("language", sa.Text, nullable=False, server_default="en"))
    op.add_column("users", sa.Column("email_verified_at", sa.DateTime(timezone=True)))
    op.add_column("users", sa.Column("deleted_at", sa.DateTime(timezone=True)))
    op.create_check_constraint("language", "users", "language IN ('en', 'tr')")
    op.create_table(
        "mailed_tokens",
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("user_id", sa.Uuid, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name="pk_mailed_tokens"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_mailed_tokens_user_id", ondelete="CASCADE"),
        sa.CheckConstraint("purpose IN ('PASSWORD_RESET', 'EMAIL_VERIFICATION')", name="purpose"),
    )
    op.create_index("ix_mailed_tokens_expires_at", "mailed_tokens", ["expires_at"])
    op.create_index("ix_mailed_tokens_user_id_purpose", "mailed_tokens", ["user_id", "purpose"])
    op.create_table(
        "password_reset_requests",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("email", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("traceparent", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.PrimaryKeyConstraint("id", name="pk_password_reset_requests"),
    )


def downgrade() -> None:
    """Drop them. Deleted accounts stay switched off, without an address."""
    op.drop_table("password_reset_requests")
    op.drop_table("mailed_tokens")
    op.drop_constraint("language", "users", type_="check")
    op.drop_column("users", "deleted_at")
    op.drop_column("users", "email_verified_at")
    op.drop_column("users", "language")
