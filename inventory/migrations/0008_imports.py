"""The tables of bulk imports, and an index that finds a product by its sku."""

import sqlalchemy as sa
from alembic import op

from extensions.storage.import_tables import create_import_tables, drop_import_tables

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables and the index."""
    create_import_tables(op)
    op.create_index("ix_product_replicas_sku", "product_replicas", [sa.text("lower(sku)")])


def downgrade() -> None:
    """Drop them."""
    op.drop_index("ix_product_replicas_sku", "product_replicas")
    drop_import_tables(op)
