"""What the search of products compares: their texts, folded, in a column of its own with an index.

`fold_text` removes what people leave out: case, accents and other marks (by the decomposition of Unicode, so that NFC
and NFD are equal), the difference between a dotted and a dotless i, and invisible characters. It depends neither on the
locale of the database nor on the C library.

The migration writes the table anew; meanwhile it cannot be read. For 100,000 products this takes up to two minutes on a
busy machine.
"""

import logging

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

FOLD_TEXT = r"""
CREATE FUNCTION fold_text(value text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN
    btrim(regexp_replace(
        normalize(
            replace(replace(replace(replace(
                translate(
                    lower(
                        regexp_replace(
                            normalize(value, NFKD) COLLATE "C",
                            '[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f'
                            || '\u00ad\u034f\u061c\u180e\u200b-\u200f\u2060-\u2064\ufe00-\ufe0f\ufeff]',
                            '', 'g'
                        ) COLLATE "und-x-icu"
                    ),
                    -- dotless i, o and l and d and h and t with a stroke, final sigma, apostrophes
                    U&'\0131\00F8\0142\0111\0127\0167\03C2\2019\2018\02BC', U&'ioldht\03C3'''''''
                ),
                'ß', 'ss'), 'æ', 'ae'), 'œ', 'oe'), 'þ', 'th'),
            NFC
        ) COLLATE "C",
        '[\u0009-\u000d\u0020\u0085\u1680\u2028\u2029]+', ' ', 'g'
    ), ' ')
"""
# A folded text has no line feed, so no search finds the end of one text and the beginning of the next.
FOLD_PRODUCT = """
CREATE FUNCTION fold_product(name text, sku text, description text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN
    fold_text(name) || chr(10) || fold_text(sku) || chr(10) || fold_text(description)
"""


def upgrade() -> None:
    """Create the functions and the column, and replace the index on the texts as they are."""
    op.execute(sa.text(FOLD_TEXT))
    op.execute(sa.text(FOLD_PRODUCT))
    folded = sa.Computed("fold_product(name, sku, description)", persisted=True)
    op.add_column("products", sa.Column("search_text", sa.Text(collation="C"), folded, nullable=False))
    op.execute(sa.text("DROP INDEX IF EXISTS ix_products_search"))
    _create_index("ix_products_search_text", ["search_text"])


def downgrade() -> None:
    """Undo it."""
    op.drop_column("products", "search_text")
    op.execute(sa.text("DROP FUNCTION fold_product"))
    op.execute(sa.text("DROP FUNCTION fold_text"))
    _create_index("ix_products_search", ["name", "sku", "description"])


def _create_index(name: str, columns: list[str]) -> None:
    """Create a trigram index, if the extension is there."""
    if not op.get_bind().scalar(sa.text("SELECT count(*) FROM pg_extension WHERE extname = 'pg_trgm'")):
        logging.getLogger("alembic").warning("search has no index, because pg_trgm is not installed")
        return
    operators = dict.fromkeys(columns, "gin_trgm_ops")
    op.create_index(name, "products", columns, postgresql_using="gin", postgresql_ops=operators)
