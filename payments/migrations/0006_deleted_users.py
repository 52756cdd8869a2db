"""The users who have deleted their accounts."""

from alembic import op

from extensions.storage import deleted_users

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    deleted_users.create_table(op)


def downgrade() -> None:
    """Drop it."""
    op.drop_table(deleted_users.TABLE)
