import sqlalchemy

from tests.support import database


def test_substrings_are_found_by_an_index(servers):
    with database("catalog").begin() as connection:
        connection.execute(sqlalchemy.text("SET LOCAL enable_seqscan = off"))
        query = "SELECT * FROM products WHERE name ILIKE '%lamp%' OR sku ILIKE '%lamp%' OR description ILIKE '%lamp%'"
        plan = "\n".join(connection.scalars(sqlalchemy.text(f"EXPLAIN {query}")))
    assert plan.count("ix_products_search") == 3
