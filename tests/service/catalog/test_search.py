"""Search finds what people mean: case, accents, the two letters i, and normal forms make no difference."""

# ruff: noqa: RUF001 - letters that look alike are what this is about

import unicodedata

import pytest
import sqlalchemy

from catalog import queries
from catalog.service import CatalogService
from contracts.catalog import ProductFilter
from tests.support import owned_database

PRODUCTS = 5_000


@pytest.fixture
def catalog(shared_services, caller):
    shared_services(CatalogService)
    return caller.catalog


def folded(*texts):
    with owned_database("catalog").connect() as connection:
        return [connection.scalar(sqlalchemy.text("SELECT fold_text(:text)"), {"text": text}) for text in texts]


EQUAL = [
    ("IŞIKLI FİNCAN", "ışıklı fincan"),
    ("Bardağı", "BARDAĞI"),
    ("ISPARTA gülü", "ısparta GÜLÜ"),
    ("İzmir", "IZMIR"),
    ("Türk", "turk"),
    ("Çay", "cay"),
    ("Crème brûlée", "CREME BRULEE"),
    ("Straße", "strasse"),
    ("Smørrebrød", "smorrebrod"),
    ("Łódź", "lodz"),
    ("ΣΊΣΥΦΟΣ", "σίσυφος"),
    ("Ａｂｃ １２％", "abc 12%"),
    ("Kah\u00adve", "kahve"),
    ("two \u00a0 words", "two words"),
    ("Antep\u2019ten", "antep'ten"),
    ("한글", "한글"),
    ("ガラス", "ガラス"),
]


@pytest.mark.parametrize("pair", EQUAL, ids=[second for _, second in EQUAL])
def test_both_spellings_are_equal_in_every_normal_form(servers, pair):
    assert len(set(folded(*(unicodedata.normalize(form, text) for text in pair for form in ("NFC", "NFD"))))) == 1


@pytest.mark.parametrize(("one", "other"), [("kar", "kır"), ("が", "か"), ("a b", "ab"), ("çay", "say")])
def test_other_words_stay_different(servers, one, other):
    first, second = folded(one, other)
    assert first != second


@pytest.mark.parametrize(("stored", "searched"), [(0, 1), (1, 0)])
def test_products_are_found_in_both_directions(catalog, stored, searched):
    for number, pair in enumerate(EQUAL):
        name = unicodedata.normalize("NFD", pair[stored])
        assert catalog.create_product(f"S-{number}", name, "1.00")["name"] == name  # it is kept as it was written
    for number, pair in enumerate(EQUAL):
        found = catalog.list_products(search=pair[searched])["items"]
        assert [item["sku"] for item in found] == [f"S-{number}"], pair


def test_a_changed_name_is_found(catalog):
    made = catalog.create_product("S-1", "Çay", "1.00")
    catalog.update_product(made["id"], name="Fıstık", description="Antep'ten")
    assert [item["id"] for item in catalog.list_products(search="FISTIK")["items"]] == [made["id"]]
    assert [item["id"] for item in catalog.list_products(search="ANTEP")["items"]] == [made["id"]]
    assert catalog.list_products(search="cay")["items"] == []


def test_no_text_continues_in_the_next_one(catalog):
    catalog.create_product("S-1", "Çay", "1.00", "demli")
    for search in ("cays-1", "cay s-1", "cay\ns-1", "s-1 demli"):
        assert catalog.list_products(search=search)["items"] == []


def test_a_search_reads_the_index(catalog):
    """At a twentieth of the promised size, PostgreSQL already prefers the index."""
    wanted = ProductFilter.parse({"search": "BARDAĞI 4711"})
    listed = queries._matching(wanted).order_by(queries.Product.created_at.desc(), queries.Product.id.desc()).limit(21)
    query = listed.compile(dialect=sqlalchemy.dialects.postgresql.dialect(), compile_kwargs={"literal_binds": True})
    with owned_database("catalog").connect() as connection:  # never committed
        connection.execute(
            sqlalchemy.text(
                "INSERT INTO products (id, sku, name, description, price, currency, is_active, version)"
                " SELECT gen_random_uuid(), 'N-' || n, 'Çay bardağı ' || n, '', 1, 'TRY', true, 1"
                " FROM generate_series(1, :products) AS n"
            ),
            {"products": PRODUCTS},
        )
        # What autovacuum does in production.
        connection.exec_driver_sql("SELECT gin_clean_pending_list('ix_products_search_text'); ANALYZE products")
        with connection.connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN ANALYZE {query}".replace("%%", "%"))
            plan = [line for (line,) in cursor]
    assert any("ix_products_search_text" in line for line in plan), plan
    assert not any("Seq Scan" in line for line in plan), plan
