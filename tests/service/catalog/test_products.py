import os
import signal
import threading
from uuid import uuid4

import pytest
import redis
import sqlalchemy
from nameko import config

from catalog.service import CatalogService
from contracts.catalog import ProductNotFound, SkuAlreadyExists
from contracts.errors import IdempotencyKeyReused, PermissionDenied, ValidationFailed
from tests.support import database, eventually, owned_database

CUSTOMER = {"user_id": "01900000-0000-7000-8000-00000000000c", "roles": ["customer"]}
ADMIN = {"user_id": "01900000-0000-7000-8000-00000000000a", "roles": ["customer", "admin"]}


@pytest.fixture
def catalog(shared_services, caller):
    shared_services(CatalogService)
    return caller.catalog


@pytest.fixture
def lamp(catalog):
    return catalog.create_product("LAMP-1", "Lamp", "149.90", "A lamp.", actor=ADMIN)


def skus(page):
    return [product["sku"] for product in page["items"]]


class TestCreate:
    def test_returns_the_product(self, catalog, lamp):
        assert lamp["created_at"] == lamp["updated_at"]
        assert {name: lamp[name] for name in lamp if name not in {"id", "created_at", "updated_at"}} == {
            "sku": "LAMP-1",
            "name": "Lamp",
            "description": "A lamp.",
            "price": "149.90",
            "currency": "TRY",
            "is_active": True,
            "version": 1,
        }
        assert catalog.get_product(lamp["id"]) == lamp

    def test_publishes_an_event(self, bus, lamp):
        (event,) = bus.wait_for("product.created", lamp["id"])
        assert event.model_dump(mode="json") == lamp

    def test_is_for_administrators_only(self, catalog):
        with pytest.raises(PermissionDenied):
            catalog.create_product("", "", 5, actor=CUSTOMER)

    @pytest.mark.parametrize("sku", ["LAMP-1", "lamp-1"])
    def test_a_sku_is_unique_regardless_of_case(self, catalog, lamp, sku):
        with pytest.raises(SkuAlreadyExists):
            catalog.create_product(sku, "Other", "1.00")

    def test_the_same_key_creates_one_product(self, catalog):
        first = catalog.create_product("LAMP-1", "Lamp", "1.00", idempotency_key="k", actor=ADMIN)
        assert catalog.create_product("LAMP-1", "Lamp", "1.00", idempotency_key="k", actor=ADMIN) == first
        with pytest.raises(IdempotencyKeyReused):
            catalog.create_product("LAMP-2", "Lamp", "1.00", idempotency_key="k", actor=ADMIN)

    def test_a_refusal_is_repeated_too(self, catalog, lamp):
        for _ in range(2):
            with pytest.raises(SkuAlreadyExists):
                catalog.create_product("LAMP-1", "Lamp", "1.00", idempotency_key="k", actor=ADMIN)
            catalog.update_product(lamp["id"], sku="LAMP-2")


class TestUpdate:
    def test_changes_only_the_stated_fields(self, catalog, bus, lamp):
        changed = catalog.update_product(lamp["id"], actor=ADMIN, price="99.00", is_active=False)
        expected = lamp | {"price": "99.00", "is_active": False, "version": 2, "updated_at": changed["updated_at"]}
        assert changed == expected
        assert changed["updated_at"] > lamp["updated_at"]
        (event,) = bus.wait_for("product.updated", lamp["id"])
        assert event.model_dump(mode="json") == changed

    def test_equal_values_are_no_change(self, catalog, bus, lamp):
        assert catalog.update_product(lamp["id"], price="149.9", name="Lamp") == lamp
        marker = catalog.create_product("MARKER", "Marker", "1.00")
        bus.wait_for("product.created", marker["id"])
        assert bus.events("product.updated") == []

    def test_is_visible_immediately_in_spite_of_the_cache(self, catalog, lamp):
        for price in ("1.00", "2.00", "3.00"):
            catalog.get_product(lamp["id"])
            catalog.update_product(lamp["id"], price=price)
            assert catalog.get_product(lamp["id"])["price"] == price

    def test_is_for_administrators_even_without_changes(self, catalog):
        with pytest.raises(PermissionDenied):
            catalog.update_product("nonsense", actor=CUSTOMER)

    def test_needs_a_field(self, catalog, lamp):
        with pytest.raises(ValidationFailed, match="at least one"):
            catalog.update_product(lamp["id"])

    def test_names_unknown_fields(self, catalog, lamp):
        with pytest.raises(ValidationFailed, match="colour"):
            catalog.update_product(lamp["id"], colour="red")

    def test_of_an_unknown_product_is_refused(self, catalog):
        with pytest.raises(ProductNotFound):
            catalog.update_product(str(uuid4()), price="1.00")

    def test_cannot_use_the_sku_of_another_product(self, catalog, lamp):
        other = catalog.create_product("LAMP-2", "Lamp", "1.00")
        with pytest.raises(SkuAlreadyExists):
            catalog.update_product(other["id"], sku="lamp-1", price="5.00")
        assert catalog.get_product(other["id"]) == other
        assert catalog.update_product(lamp["id"], sku="lamp-1")["sku"] == "lamp-1"

    def test_no_concurrent_change_is_lost(self, catalog, lamp):
        threads = [
            threading.Thread(target=catalog.update_product, args=[lamp["id"]], kwargs={"description": f"Text {n}"})
            for n in range(10)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert catalog.get_product(lamp["id"])["version"] == 11


class TestRead:
    def test_only_administrators_see_inactive_products(self, catalog, lamp):
        catalog.update_product(lamp["id"], is_active=False)
        for _ in range(2):  # from the database, then from the cache
            with pytest.raises(ProductNotFound):
                catalog.get_product(lamp["id"], actor=CUSTOMER)
            assert catalog.get_product(lamp["id"], actor=ADMIN)["is_active"] is False
        assert skus(catalog.list_products(actor=CUSTOMER)) == []
        assert skus(catalog.list_products(only_active=False, actor=ADMIN)) == ["LAMP-1"]
        with pytest.raises(PermissionDenied):
            catalog.list_products(only_active=False, actor=CUSTOMER)

    def test_a_lookup_returns_the_existing_products(self, catalog, lamp):
        off = catalog.create_product("OFF", "Off", "1.00", is_active=False)
        found = catalog.get_products([lamp["id"], str(uuid4()), off["id"], lamp["id"]])
        assert sorted(skus(found)) == ["LAMP-1", "OFF"]

    @pytest.mark.parametrize("product_id", ["nonsense", "", None, 5, "\x00"])
    def test_an_id_is_a_uuid(self, catalog, product_id):
        with pytest.raises(ValidationFailed, match="product_id"):
            catalog.get_product(product_id)

    def test_reads_from_the_cache(self, catalog, lamp):
        catalog.get_product(lamp["id"])
        with owned_database("catalog").begin() as connection:
            connection.execute(sqlalchemy.text("DELETE FROM products"))
        assert catalog.get_product(lamp["id"]) == lamp


class TestList:
    @pytest.fixture(autouse=True)
    def products(self, catalog):
        catalog.create_product("B-2", "Bowl", "20.00", "100% clay")
        catalog.create_product("A-1", "Apron", "10.00", "for_the cook")
        catalog.create_product("C-3", "Cup", "20.00", "a\\b")

    @pytest.mark.parametrize(
        ("sort", "expected"),
        [
            ("-created_at", ["C-3", "A-1", "B-2"]),
            ("created_at", ["B-2", "A-1", "C-3"]),
            ("price", ["A-1", "B-2", "C-3"]),
            ("-price", ["C-3", "B-2", "A-1"]),
            ("name", ["A-1", "B-2", "C-3"]),
            ("-name", ["C-3", "B-2", "A-1"]),
            ("sku", ["A-1", "B-2", "C-3"]),
            ("-sku", ["C-3", "B-2", "A-1"]),
        ],
    )
    def test_sorts_and_pages(self, catalog, sort, expected):
        assert skus(catalog.list_products(sort=sort)) == expected
        found, cursor = [], None
        for _ in expected:
            page = catalog.list_products(sort=sort, limit=1, cursor=cursor)
            found += skus(page)
            cursor = page["next_cursor"]
        assert (found, cursor) == (expected, None)

    @pytest.mark.parametrize("key", ["created_at", "price", "name", "sku"])
    @pytest.mark.parametrize("direction", ["", "-"])
    def test_pages_stay_correct_while_products_are_added(self, catalog, key, direction):
        """Every earlier product is listed once and in order, wherever new products are inserted."""

        def add(number):
            # Equal prices and names, so that a page can end between equal values.
            name, price = f"Şal {number % 3}", f"{15 + number % 3}.00"
            return catalog.create_product(f"S-{number * 37 % 100:02}", name, price)["sku"]

        there = {"B-2", "A-1", "C-3", *(add(number) for number in range(9))}
        sort, found, cursor, number = direction + key, [], None, 10
        while not found or cursor:
            page = catalog.list_products(sort=sort, limit=3, cursor=cursor)
            found += page["items"]
            cursor = page["next_cursor"]
            for _ in range(2 if number < 20 else 0):
                add(number)
                number += 1
        listed = skus({"items": found})
        assert len(set(listed)) == len(listed)
        assert there <= set(listed)
        everything = skus(catalog.list_products(sort=sort, limit=100))
        assert listed == [sku for sku in everything if sku in listed]

    @pytest.mark.parametrize("letter", ["x", "ş", "茶", "😀", '"', "\\"])
    def test_the_longest_name_fits_into_a_cursor(self, catalog, letter):
        for number in (1, 2):
            catalog.create_product(f"LONG-{number}", letter * 200, "1.00")
        wanted = {"sort": "name", "limit": 1, "search": "long-"}
        first = catalog.list_products(**wanted)
        assert skus(catalog.list_products(**wanted, cursor=first["next_cursor"])) == ["LONG-2"]

    @pytest.mark.parametrize("sort", ["created_at", "-created_at", "price", "-price", "name", "-name", "sku", "-sku"])
    def test_a_cursor_is_valid_only_for_the_list_that_issued_it(self, catalog, sort):
        cursor = catalog.list_products(sort=sort, limit=1)["next_cursor"]
        other = "price" if sort != "price" else "name"
        tampered = [cursor[:-4], cursor[:9] + "AAAA" + cursor[9:], cursor[::-1], f" {cursor}", cursor.replace(".", "")]
        for wanted in ({"sort": other, "cursor": cursor}, *({"sort": sort, "cursor": one} for one in tampered)):
            with pytest.raises(ValidationFailed) as refused:
                catalog.list_products(**wanted)
            assert [error.field for error in refused.value.errors] == ["cursor"]

    @pytest.mark.parametrize(
        ("wanted", "expected"),
        [
            ({"search": "BOWL"}, ["B-2"]),
            ({"search": "clay"}, ["B-2"]),
            ({"search": "c-"}, ["C-3", "B-2", "A-1"]),  # the others have clay and cook in their descriptions
            ({"search": "100%"}, ["B-2"]),
            ({"search": "for_the"}, ["A-1"]),
            ({"search": "%"}, []),
            ({"search": "_"}, []),
            ({"search": "\\"}, []),
            ({"search": "zebra"}, []),
            ({"sku": "a-1"}, ["A-1"]),
            ({"min_price": "10.01"}, ["C-3", "B-2"]),
            ({"max_price": "10.00"}, ["A-1"]),
            ({"min_price": "20.00", "max_price": "20.00", "search": "cup"}, ["C-3"]),
        ],
    )
    def test_filters(self, catalog, wanted, expected):
        assert skus(catalog.list_products(**wanted)) == expected

    @pytest.mark.parametrize("wanted", [{"cursor": "x"}, {"limit": 101}, {"min_price": 1.5}, {"sort": "colour"}])
    def test_refuses_and_names_the_field(self, catalog, wanted):
        with pytest.raises(ValidationFailed, match=next(iter(wanted))):
            catalog.list_products(**wanted)


def test_health(catalog):
    assert catalog.health()["status"] == "ok"


class TestListCache:
    def test_a_list_shows_the_last_change(self, catalog, lamp):
        assert skus(catalog.list_products()) == ["LAMP-1"]
        catalog.create_product("RUG-1", "Rug", "10.00")
        assert skus(catalog.list_products()) == ["RUG-1", "LAMP-1"]
        catalog.update_product(lamp["id"], is_active=False)
        assert skus(catalog.list_products()) == ["RUG-1"]

    def test_a_public_list_is_read_once(self, catalog, lamp):
        first = catalog.list_products(sort="price")
        with database("catalog").begin() as connection:  # without the service: only a cached list does not show it
            connection.execute(sqlalchemy.text("UPDATE products SET name = 'Other'"))
        assert catalog.list_products(sort="price") == first
        assert catalog.list_products(sort="price", only_active=False)["items"][0]["name"] == "Other"

    def test_without_redis_it_is_read_from_the_database(self, catalog, lamp, servers):
        catalog.list_products()
        servers.redis.stop()
        try:
            assert skus(catalog.list_products()) == ["LAMP-1"]
            assert catalog.get_product(lamp["id"]) == lamp
        finally:
            servers.redis.start()

    def test_a_failed_invalidation_is_repeated_before_the_next_read(self, catalog, lamp, servers):
        assert catalog.get_product(lamp["id"])["price"] == "149.90"
        os.kill(servers.redis.pid, signal.SIGSTOP)  # it keeps its data and does not respond
        try:
            catalog.update_product(lamp["id"], price="99.00")
            assert catalog.get_product(lamp["id"])["price"] == "99.00"
        finally:
            os.kill(servers.redis.pid, signal.SIGCONT)
        known = cache_client()
        eventually(lambda: known.hget(f"catalog:product:{lamp['id']}", "version") == "2", timeout=10)
        assert catalog.get_product(lamp["id"])["price"] == "99.00"


def cache_client():
    return redis.Redis.from_url(config["REDIS_URL"], decode_responses=True)
