"""Publishes `product.updated` once for each product, because inventory did not receive these events before.

Inventory stores the skus, and corrects those of stock records that have an old or a wrong one. A stock record of a
product that catalog does not have keeps its sku. The version of the products does not change, so nothing else happens.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

PUBLISH = """
    INSERT INTO outbox (message_id, event_type, body, correlation_id, headers)
    SELECT gen_random_uuid(), 'product.updated',
           json_build_object(
               'id', id, 'sku', sku, 'name', name, 'description', description, 'price', price::text,
               'currency', currency, 'is_active', is_active, 'version', version,
               'created_at', to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
               'updated_at', to_char(updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
           )::text,
           id::text, json_build_object('x-request-id', 'catalog-migration-0004')::jsonb
    FROM products ORDER BY id
"""


def upgrade() -> None:
    """Put the events into the outbox, from which they are sent as soon as catalog runs."""
    op.execute(PUBLISH)


def downgrade() -> None:
    """Nothing to undo: the events say what is so."""
