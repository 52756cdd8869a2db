"""The skus of the catalog's products. Migration 0004 of catalog fills the table: it publishes each product once."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table. Stock records keep their sku until the product arrives, then they get the product's."""
    op.create_table(
        "product_replicas",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("sku", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_product_replicas"),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("product_replicas")
