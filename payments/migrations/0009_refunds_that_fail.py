"""Refunds that the provider has refused too often."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Allow the status. The table of refunds is read once."""
    _set_statuses("'PENDING', 'SUCCEEDED', 'FAILED'")


def downgrade() -> None:
    """Forbid it. Impossible while there is such a refund: the previous version has no such status."""
    _set_statuses("'PENDING', 'SUCCEEDED'")


def _set_statuses(statuses: str) -> None:
    op.drop_constraint("status", "refunds", type_="check")
    op.create_check_constraint("status", "refunds", f"status IN ({statuses})")
