"""The search finds a part of a text by the table of words, so the table gets all words, and the text no index.

The trigram index on the texts was most of the work of writing a product, and reading it for a frequent part of a word
took longer than all else in a search. The words are far fewer than the texts. `words_like` finds those that contain a
part. Words with digits are added, because a sku is found by a part of it too. `similar_words` still leaves them out: a
number that is one digit away is another number.

The lists of entries that wait for their place in a GIN index become short, because every search reads all of them.
"""

import logging

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# The words are sorted, so that two transactions wait for each other's new words in the same order.
ADD_WORDS = """
    INSERT INTO product_words (word)
    SELECT DISTINCT word FROM {products}, unnest(tsvector_to_array(search_vector)) AS word {condition}
    ORDER BY word ON CONFLICT DO NOTHING
"""
ADD_PRODUCT_WORDS = """
CREATE OR REPLACE FUNCTION add_product_words() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    {statement};
    RETURN NULL;
END $$
"""
# Only a bitmap scan uses the trigram index. PostgreSQL would read all words by another one while they are few.
FUNCTION = """
CREATE OR REPLACE FUNCTION {name} RETURNS SETOF text LANGUAGE sql STABLE STRICT
SET enable_seqscan = off SET enable_indexscan = off SET enable_indexonlyscan = off AS $$
    SELECT word FROM product_words WHERE {condition} ORDER BY {order}, word LIMIT most
$$
"""
WORDS_LIKE, WITH_PART = "words_like(pattern text, most integer)", r"word LIKE pattern ESCAPE '\'"
SIMILAR_WORDS, SIMILAR = "similar_words(misspelt text, most integer)", "word % misspelt"
HAS_DIGITS = "word ~ '[0-9]'"
GIN_INDEXES = ("ix_products_search_vector", "ix_product_words_word")
# Similar words are looked for here: many skus begin with the same letters, so each of them is a little similar.
LETTERS_INDEX = f"""
CREATE INDEX ix_product_words_letters ON product_words USING gin (word gin_trgm_ops)
WITH (gin_pending_list_limit = 256) WHERE NOT {HAS_DIGITS}
"""


def upgrade() -> None:
    """Add the words, create the function, and drop the index."""
    op.execute("DROP INDEX IF EXISTS ix_products_search_text")
    _replace(added="", similar=f"{SIMILAR} AND NOT {HAS_DIGITS}")
    op.execute(ADD_WORDS.format(products="products", condition=""))
    op.execute(sa.text(FUNCTION.format(name=WORDS_LIKE, condition=WITH_PART, order="length(word)")))
    for index in GIN_INDEXES:
        op.execute(f"ALTER INDEX IF EXISTS {index} SET (gin_pending_list_limit = 256)")
    if _has_trigrams():
        op.execute(LETTERS_INDEX)


def downgrade() -> None:
    """Undo it."""
    for index in GIN_INDEXES:
        op.execute(f"ALTER INDEX IF EXISTS {index} RESET (gin_pending_list_limit)")
    op.execute("DROP INDEX IF EXISTS ix_product_words_letters")
    op.execute(f"DROP FUNCTION {WORDS_LIKE}")
    op.execute(sa.text("DELETE FROM product_words WHERE word ~ '[0-9]'"))
    _replace(added=f"WHERE NOT {HAS_DIGITS}", similar=SIMILAR)
    if not _has_trigrams():
        logging.getLogger("alembic").warning("search has no index, because pg_trgm is not installed")
        return
    operators = {"search_text": "gin_trgm_ops"}
    op.create_index(
        "ix_products_search_text", "products", ["search_text"], postgresql_using="gin", postgresql_ops=operators
    )


def _replace(*, added: str, similar: str) -> None:
    """Replace the functions that add words and find similar ones; without pg_trgm there are no similar ones."""
    statement = ADD_WORDS.format(products="changed", condition=added)
    op.execute(sa.text(ADD_PRODUCT_WORDS.format(statement=statement)))
    if _has_trigrams():
        order = "similarity(word, misspelt) DESC"
        op.execute(sa.text(FUNCTION.format(name=SIMILAR_WORDS, condition=similar, order=order)))


def _has_trigrams() -> bool:
    return bool(op.get_bind().scalar(sa.text("SELECT count(*) FROM pg_extension WHERE extname = 'pg_trgm'")))
