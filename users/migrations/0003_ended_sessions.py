"""Index the end of sessions. A gateway that was not running asks for the sessions that ended in the meantime."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the index."""
    where = sa.text("revoked_at IS NOT NULL")
    op.create_index("ix_refresh_families_revoked_at", "refresh_families", ["revoked_at"], postgresql_where=where)


def downgrade() -> None:
    """Drop it."""
    op.drop_index("ix_refresh_families_revoked_at", "refresh_families")
