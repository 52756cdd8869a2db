"""Products, and the messaging tables."""

import logging

import sqlalchemy as sa
from alembic import op
from sqlalchemy.exc import DBAPIError

from extensions.storage.migrations import create_messaging_tables, drop_messaging_tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

NOW = sa.func.statement_timestamp()
SEARCHED = ("name", "sku", "description")


def upgrade() -> None:
    """Create the tables."""
    create_messaging_tables(op)
    op.create_table(
        "products",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("sku", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("price", sa.Numeric(12, 2), nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("is_active", sa.Boolean, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.PrimaryKeyConstraint("id", name="pk_products"),
        sa.CheckConstraint("price >= 0", name="price"),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
        sa.CheckConstraint("version >= 1", name="version"),
    )
    op.create_index("uq_products_sku", "products", [sa.text("lower(sku)")], unique=True)
    for column in ("created_at", "price", "name", "sku"):
        op.create_index(f"ix_products_{column}_id", "products", [column, "id"])
    _create_search_index()


def _create_search_index() -> None:
    """Let PostgreSQL find substrings by an index. The database's owner may install pg_trgm, unless it is not there."""
    try:
        with op.get_bind().begin_nested():
            op.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
    except DBAPIError as error:
        logging.getLogger("alembic").warning("search has no index, as pg_trgm cannot be installed: %s", error.orig)
        return
    operators = dict.fromkeys(SEARCHED, "gin_trgm_ops")
    op.create_index("ix_products_search", "products", SEARCHED, postgresql_using="gin", postgresql_ops=operators)


def downgrade() -> None:
    """Drop the tables. The extension stays: it may serve others."""
    op.drop_table("products")
    drop_messaging_tables(op)
