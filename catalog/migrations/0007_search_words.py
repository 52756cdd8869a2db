"""What the ranked search of products compares: the words of their texts, with an index, and a table of all words.

`search_vector` has the folded words of the name (weight A), of the sku (B) and of the description (D). A sku is also
one word without its punctuation. `fold_words` makes the words, also those of what people type.

`product_words` has every word of letters that a product has, or had. A trigger adds the words of new texts. The search
replaces a misspelt word by `similar_words` of this table.

The migration writes the table anew; meanwhile it cannot be read. For 100,000 products this takes up to three minutes on
a busy machine.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TSVECTOR

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# Blanks, the punctuation and symbols of ASCII, and the general punctuation of Unicode separate words. What is no
# separator belongs to a word, in every script. PostgreSQL's own parser would split "1e5", "-12" or "a.b" differently.
# Of a very long word the beginning counts: a tsvector has no words of more than 2046 bytes.
FOLD_WORDS = r"""
CREATE FUNCTION fold_words(value text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN
    btrim(regexp_replace(
        regexp_replace(
            fold_text(value) COLLATE "C",
            '[\u0001-\u002f\u003a-\u0040\u005b-\u0060\u007b-\u00bf\u2000-\u206f\u3000-\u3003\u3008-\u3011]+', ' ', 'g'
        ),
        '([^ ]{64})[^ ]+', '\1', 'g'
    ))
"""
# The text form of a tsvector is 'word':1A. No word has a quote or a backslash, because they separate words. All words
# have the same position, because only the weight is used.
WEIGHTED_WORDS = """
CREATE FUNCTION weighted_words(words text, weight text) RETURNS tsvector LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN CAST(
    CASE WHEN words = '' THEN ''
    ELSE '''' || replace(words, ' ', ''':1' || weight || ' ''') || ''':1' || weight END AS tsvector
)
"""
SEARCH_VECTOR = """
CREATE FUNCTION search_vector(name text, sku text, description text) RETURNS tsvector
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN
    weighted_words(fold_words(name), 'A')
    || weighted_words(fold_words(sku) || ' ' || lower(translate(sku, '-._', '')), 'B')
    || weighted_words(fold_words(description), 'D')
"""
# Words with digits are left out: a number that is one digit away is another number. The words are sorted, so that two
# transactions wait for each other's new words in the same order.
ADD_WORDS = """
    INSERT INTO product_words (word)
    SELECT DISTINCT word FROM {products}, unnest(tsvector_to_array(search_vector)) AS word WHERE word ~ '^[^0-9]+$'
    ORDER BY word ON CONFLICT DO NOTHING
"""
ADD_PRODUCT_WORDS = f"""
CREATE FUNCTION add_product_words() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    {ADD_WORDS.format(products="changed")};
    RETURN NULL;
END $$
"""
TRIGGER = """
CREATE TRIGGER {event}_words AFTER {event} ON products REFERENCING NEW TABLE AS changed
FOR EACH STATEMENT EXECUTE FUNCTION add_product_words()
"""
# Only a bitmap scan uses the trigram index. PostgreSQL would read all words by another one while they are few.
SIMILAR_WORDS = """
CREATE FUNCTION similar_words(misspelt text, most integer) RETURNS SETOF text LANGUAGE sql STABLE STRICT
SET enable_seqscan = off SET enable_indexscan = off SET enable_indexonlyscan = off AS $$
    SELECT word FROM product_words WHERE {condition} LIMIT most
$$
"""
BY_TRIGRAMS = "word % misspelt ORDER BY similarity(word, misspelt) DESC, word"
NAME_START = "left(search_text, 64)"


def upgrade() -> None:
    """Create the functions, the column, the table of words and the indexes."""
    execute = op.get_bind().exec_driver_sql
    for function in (FOLD_WORDS, WEIGHTED_WORDS, SEARCH_VECTOR):
        execute(function)
    computed = sa.Computed("search_vector(name, sku, description)", persisted=True)
    op.add_column("products", sa.Column("search_vector", TSVECTOR, computed, nullable=False))
    op.create_index("ix_products_search_vector", "products", ["search_vector"], postgresql_using="gin")
    op.create_index("ix_products_name_start", "products", [sa.text(NAME_START), "id"])
    op.create_table(
        "product_words",
        sa.Column("word", sa.Text(collation="C"), nullable=False),
        sa.PrimaryKeyConstraint("word", name="pk_product_words"),
    )
    execute(ADD_WORDS.format(products="products"))
    execute(ADD_PRODUCT_WORDS)
    for event in ("INSERT", "UPDATE"):
        execute(TRIGGER.format(event=event))
    _create_similar_words()


def _create_similar_words() -> None:
    """Create the function and its index; without pg_trgm it finds nothing."""
    if not op.get_bind().scalar(sa.text("SELECT count(*) FROM pg_extension WHERE extname = 'pg_trgm'")):
        op.execute(sa.text(SIMILAR_WORDS.format(condition="false")))
        return
    operators = {"word": "gin_trgm_ops"}
    op.create_index(
        "ix_product_words_word", "product_words", ["word"], postgresql_using="gin", postgresql_ops=operators
    )
    op.execute(sa.text(SIMILAR_WORDS.format(condition=BY_TRIGRAMS)))


def downgrade() -> None:
    """Undo it."""
    for event in ("INSERT", "UPDATE"):
        op.execute(f"DROP TRIGGER {event}_words ON products")
    op.execute("DROP FUNCTION add_product_words")
    op.execute("DROP FUNCTION similar_words")
    op.drop_table("product_words")
    op.drop_index("ix_products_name_start", "products")
    op.drop_column("products", "search_vector")
    for function in ("search_vector", "weighted_words", "fold_words"):
        op.execute(f"DROP FUNCTION {function}")
