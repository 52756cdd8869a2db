"""Search finds what people mean: case, accents, the two letters i, and normal forms make no difference."""

# ruff: noqa: RUF001 - letters that look alike are what this is about

import unicodedata
from contextlib import contextmanager

import pytest
import sqlalchemy
from sqlalchemy.orm import Session

from catalog import matching, queries
from catalog import search as search_module
from catalog.service import CatalogService
from contracts.base import OPERATOR
from contracts.catalog import ProductFilter
from contracts.errors import ValidationFailed
from qa.support import query_plans
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


def test_a_part_of_the_text_does_not_continue_in_the_next_one(catalog):
    catalog.create_product("X12-Y", "Çaylık", "1.00", "demli")
    assert catalog.list_products(search="aylı")["items"]
    for search in ("lıkx12", "ylık x12-y d", "12-ydem"):
        assert catalog.list_products(search=search)["items"] == [], search


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("rmızı bardağı", ["N1"]),  # it ends a word, then follows a word
        ("ardağı 47", ["N1"]),
        ("711", ["N1"]),
        ("876", ["XY-98765"]),
        ("ardağı", ["N1", "N2"]),
        ("ki bardağı çok", ["N2"]),  # the first word is too short to be looked for
        ("ardağı 71", []),  # the last word must begin one
        ("rmızı 4711", []),  # not one after the other
        ("zı ba", []),  # too short
    ],
)
def test_a_part_of_the_text_is_found(catalog, typed, expected):
    add(catalog, **{"N1": "Kırmızı Bardağı 4711", "N2": "Eski Bardağı Çok", "XY-98765": "Kilim"})
    assert sorted(skus(catalog.list_products(search=typed))) == expected


def test_of_many_words_with_a_part_the_shortest_ones_count(catalog, monkeypatch):
    monkeypatch.setattr(matching, "MOST_WITH_PART", 2)
    add(catalog, N1="Xardak", N2="Yyardak", N3="Zzzardak")
    assert sorted(skus(catalog.list_products(search="ardak"))) == ["N1", "N2"]


def add(catalog, **names):
    """Create products with these names, by sku; the later ones are newer."""
    return {sku: catalog.create_product(sku, name, "1.00")["id"] for sku, name in names.items()}


def skus(page):
    return [item["sku"] for item in page["items"]]


def test_the_best_match_comes_first(catalog):
    catalog.create_product("D1", "Tabak", "1.00", "bir bardak altlığı")
    add(catalog, N1="Bardaklık", N2="Kırmızı Bardak", N3="Bardak Kırmızı", N4="Bardak")
    catalog.create_product("BARDAK", "Fincan", "1.00")
    assert skus(catalog.list_products(search="bardak")) == ["BARDAK", "N4", "N3", "N1", "N2", "D1"]
    assert skus(catalog.list_products(search="BARDAK", sort="sku")) == ["BARDAK", "D1", "N1", "N2", "N3", "N4"]


def test_words_are_found_in_any_order_and_by_their_beginning(catalog):
    add(catalog, N1="Kırmızı Porselen Bardak", N2="Kırmızı Tabak", N3="Mavi Bardak")
    assert skus(catalog.list_products(search="bard kırm")) == ["N1"]
    assert skus(catalog.list_products(search="n1 bardak")) == ["N1"]  # one word is the sku
    assert skus(catalog.list_products(search="porselen tabak")) == []


@pytest.mark.parametrize("typed", ["brdak", "baradk", "bardakk", "bordak", "kirmzi bardak", "kırmızı badrak", "bardka"])
def test_small_typing_errors_are_found(catalog, typed):
    add(catalog, N1="Kırmızı Bardak", N2="Mavi Tencere", N3="Yeşil Kilim", N4="Bardağı Beyaz")
    found = skus(catalog.list_products(search=typed))
    assert found
    assert set(found) <= {"N1", "N4"}


@pytest.mark.parametrize("typed", ["tencere kilim", "zzzz", "t-1000", "bar10"])
def test_what_is_no_typing_error_is_not_found(catalog, typed):
    add(catalog, N1="Kırmızı Bardak 100", N2="Mavi Tencere", N3="Yeşil Kilim")
    assert skus(catalog.list_products(search=typed)) == []


def test_a_sku_is_found_with_and_without_its_punctuation(catalog):
    add(catalog, **{"AB-12.X_9": "Bardak", "AB-13": "Bardak"})
    for typed in ("ab-12.x_9", "AB12X9", "ab 12", "12-x"):
        assert skus(catalog.list_products(search=typed)) == ["AB-12.X_9"], typed


@pytest.mark.parametrize("sort", [None, "price", "-name", "sku", "-created_at"])
@pytest.mark.parametrize("typed", ["bardak", "b", "ardak", "bardka"])
@pytest.mark.parametrize(("most", "seem_many"), [(1000, False), (3, False), (3, True)], ids=["few", "many", "sampled"])
def test_pages_contain_each_match_once(catalog, monkeypatch, sort, typed, most, seem_many):
    """Also while products are added, and where there are too many matches to score or to sort."""
    monkeypatch.setattr(search_module, "MOST_SCORED", most)
    monkeypatch.setattr(search_module, "MOST_SORTED", most)
    if seem_many:
        monkeypatch.setattr(search_module.Page, "seem_many", lambda *_: True)
    names = ["Bardak", "Mavi Bardak", "Bardaklık", "Çift Bardak", "Bardak Seti", "Kilim", "Bardak"]
    expected = {f"N{number}" for number, name in enumerate(names) if name != "Kilim"}
    for number, name in enumerate(names):
        catalog.create_product(f"N{number}", name, f"{10 - number}.00")
    wanted = {"search": typed, "limit": 2, "min_price": "1.00"} | ({"sort": sort} if sort else {})
    listed, cursor = [], None
    while cursor or not listed:
        page = catalog.list_products(**wanted, cursor=cursor)
        listed += skus(page)
        cursor = page["next_cursor"]
        catalog.create_product(f"NEW-{len(listed)}", "Bardak", "0.50")  # not within the filter
    assert sorted(listed) == sorted(expected)
    if sort:
        whole = catalog.list_products(**{**wanted, "limit": 100})
        assert listed == skus(whole)


def test_a_cursor_of_another_order_is_refused(catalog):
    add(catalog, N1="Bardak", N2="Bardak", N3="Bardak")
    by_score = catalog.list_products(search="bardak", limit=1)["next_cursor"]
    by_price = catalog.list_products(search="bardak", limit=1, sort="price")["next_cursor"]
    plain = catalog.list_products(limit=1)["next_cursor"]
    for cursor, sort in (
        (by_score, "price"), (by_price, None), (by_price, "name"), (plain, None), (plain, "price"),
        ("w", None), ("wr.x", None), ("ws.", "price"), (".", None), ("xr." + by_score[3:], None),
    ):  # fmt: skip
        with pytest.raises(ValidationFailed):
            catalog.list_products(search="bardak", cursor=cursor, **({"sort": sort} if sort else {}))


HOSTILE = ["&", "|", "!", ":*", "'", "''", "\\", "a&", "!a", "a:*", "a:b", "(", "<->", "%", "_", "a%", "\\'", "☕"]
LONG = ["".join(HOSTILE), "a " * 100, "x" * 200, "İ" * 200, "'" * 200, "ab" * 100]


@pytest.mark.parametrize("typed", [*HOSTILE, *LONG, "  ", "\n"])
def test_no_text_is_an_error(catalog, typed):
    add(catalog, N1="Kahve ☕", N2="a'b\\c")
    for sort in ({}, {"sort": "price"}):
        assert set(skus(catalog.list_products(search=typed, **sort))) <= {"N1", "N2"}
    assert skus(catalog.list_products(search="☕")) == ["N1"]


def test_a_search_reads_the_indexes(servers):
    """At a twentieth of the promised size, PostgreSQL already reads no product that does not match."""
    searches = ["BARDAĞI 4711", "b", "bardağı", "ardağı 47", "bardgı 4711", "N-4711"]
    plans = {}
    with owned_database("catalog").connect() as connection:  # never committed
        connection.execute(
            sqlalchemy.text(
                "INSERT INTO products (id, sku, name, description, price, currency, is_active, version)"
                " SELECT gen_random_uuid(), 'N-' || n, 'Çay bardağı ' || n, '', n, 'TRY', true, 1"
                " FROM generate_series(1, :products) AS n"
            ),
            {"products": PRODUCTS},
        )
        # What autovacuum does in production.
        for index in ("ix_products_search_vector", "ix_product_words_word"):
            connection.exec_driver_sql(f"SELECT gin_clean_pending_list('{index}')")
        connection.exec_driver_sql("ANALYZE products")
        connection.exec_driver_sql("ANALYZE product_words")
        with Session(connection) as session:
            for words, are_many in (("bardagi", True), ("bardagi 4711", False), ("n 4711", False)):
                typed, blocks = search_module.read(session, words)
                search = matching.search_for(session, matching.How.WORDS, typed)
                page = search_module.Page(session, lambda _: [], None, limit=20, descending=True, blocks=blocks)
                assert page.seem_many(search) == are_many, words
        for wanted, used, unused in (
            ({"search": "bardağı", "min_price": "10.00", "max_price": "12.00"}, "price_id", "search_vector"),
            ({"search": "4711", "min_price": "10.00"}, "search_vector", "price_id"),
        ):
            with (
                explained(connection, chosen := {}),
                Session(connection) as session,
                session.begin_nested() as settings,
            ):
                assert queries.list_products(session, ProductFilter.parse(wanted), OPERATOR)["items"]
                settings.rollback()
            names = {node.get("Index Name") for plan in chosen.values() for node, _ in query_plans.nodes(plan)}
            assert f"ix_products_{used}" in names
            assert f"ix_products_{unused}" not in names
        with explained(connection, plans), Session(connection) as session:
            for typed in searches:
                for sort in (None, "price", "-name"):
                    found(session, search=typed, sort=sort)
    assert len(plans) > len(searches)
    whole = {statement: read for statement, plan in plans.items() if (read := read_whole(plan))}
    assert whole == {}


def found(session, **wanted):
    """Return the products that a list has, without its settings of the transaction afterwards."""
    with session.begin_nested() as settings:
        items = queries.list_products(session, ProductFilter.parse(wanted), OPERATOR)["items"]
        settings.rollback()
    return items


@contextmanager
def explained(connection, plans):
    """Add the plan of every SELECT in the block to `plans`."""

    def explain(conn, _cursor, statement, parameters, _context, _many):
        if "EXPLAIN" not in statement and statement.lstrip().startswith(
            ("SELECT products", "WITH", "SELECT product_words")
        ):
            with conn.connection.cursor() as cursor:
                cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
                plans[f"{statement} {parameters}"] = cursor.fetchone()[0][0]["Plan"]

    sqlalchemy.event.listen(connection, "before_cursor_execute", explain)
    yield
    sqlalchemy.event.remove(connection, "before_cursor_execute", explain)


def read_whole(plan):
    return query_plans.Executed("catalog", "", plan).read_whole
