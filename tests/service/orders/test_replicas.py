"""The replicas of catalog's products in orders: how they are stored, and what they decide while catalog is silent."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from unittest.mock import Mock

import eventlet
import nameko
import pytest
import redis
import sqlalchemy
from nameko import config

from contracts.catalog import ProductCreated, ProductUpdated
from contracts.errors import ServiceUnavailable, UpstreamTimeout
from contracts.orders import PriceChanged, ProductUnavailable
from orders.providers import ProductSourceProvider
from orders.service import OrdersService
from tests.service.orders.test_service import ALICE, BOOK, PEN, line, product
from tests.support import TEST_TIMEOUT_SECONDS, database, eventually, owned_database

MAX_AGE = 600


class Catalog:
    """A catalog that can fall silent, and orders beside it."""

    def __init__(self, services, orders, container):
        self.services, self.orders, self.container = services, orders, container

    def fall_silent(self, failure=UpstreamTimeout):
        """Let every call to catalog fail from now on, and forget the copies in the memory of orders."""
        self.services.catalog.get_products = Mock(side_effect=failure)
        redis.Redis.from_url(config["REDIS_URL"]).flushall()

    def be_slow(self):
        """Let calls to catalog take longer than orders wait for a prompt response."""
        prompt, get_products = config.get("CATALOG_PROMPT_SECONDS", 0.1), self.services.catalog.get_products

        def within(seconds):
            if seconds > prompt:
                return SimpleNamespace(catalog=SimpleNamespace(get_products=get_products))
            return SimpleNamespace(catalog=SimpleNamespace(get_products=Mock(side_effect=UpstreamTimeout)))

        self.services.within = within
        redis.Redis.from_url(config["REDIS_URL"]).flushall()

    def forget_what_is_stored(self):
        """Let orders store the products again that catalog confirms next."""
        [provider] = [one for one in self.container.dependencies if isinstance(one, ProductSourceProvider)]
        provider.source.confirmations._stored.clear()

    def order(self, *lines, **more):
        return self.orders.create_order([*lines], actor=ALICE, **more)

    def first_entry(self, order):
        return self.orders.get_timeline(order["id"])["items"][0]["data"]


@pytest.fixture
def catalog(run_service, caller):
    services = Mock()
    services.within.return_value = services
    services.catalog.get_products = lambda product_ids: {
        "items": [item for item in (PEN, BOOK) if item["id"] in product_ids]
    }
    with nameko.config.patch({"PRODUCT_REPLICA_MAX_AGE_SECONDS": MAX_AGE}):
        container = run_service(OrdersService, services=services)
    return Catalog(services, caller.orders, container)


def replica(made):
    """The stored (price, is_active, version, seconds since it was confirmed) of a product."""
    columns = "price, is_active, version, extract(epoch FROM clock_timestamp() - confirmed_at)::float"
    with database("orders").connect() as connection:
        found = connection.execute(
            sqlalchemy.text(f"SELECT {columns} FROM product_replicas WHERE id = :id"), {"id": made["id"]}
        ).one_or_none()
        return found and tuple(found)


def is_stored(made, version=1):
    return eventually(lambda: (found := replica(made)) and found[2] == version)


def age(made, seconds):
    with database("orders").begin() as connection:
        connection.execute(
            sqlalchemy.text(
                "UPDATE product_replicas SET confirmed_at = clock_timestamp() - make_interval(secs => :age)"
                " WHERE id = :id"
            ),
            {"age": seconds, "id": made["id"]},
        )


def updated(made, **changes):
    return ProductUpdated(**(made | {"updated_at": datetime.now(UTC).isoformat()} | changes))


def test_a_priced_product_is_stored_and_decides_while_catalog_is_silent(catalog):
    order = catalog.order(line(), line(BOOK))
    assert "prices_from" not in catalog.first_entry(order)
    is_stored(PEN)
    is_stored(BOOK)
    catalog.fall_silent()
    again = catalog.order(line(), line(BOOK))
    assert again["total_amount"] == order["total_amount"]
    entry = catalog.first_entry(again)
    assert entry["prices_from"] == "replica"
    assert datetime.fromisoformat(entry["prices_confirmed_at"]) <= datetime.now(UTC)
    assert entry["order_id"] == again["id"]


def test_the_event_of_an_order_does_not_tell_where_its_prices_come_from(catalog, bus):
    catalog.order(line())
    is_stored(PEN)
    catalog.fall_silent()
    order = catalog.order(line())
    assert bus.wait_for("order.created", order["id"])
    (message,) = [one for one in bus.messages if one.properties["correlation_id"] == order["id"]]
    assert "replica" not in str(message.body)


@pytest.mark.parametrize("failure", [ServiceUnavailable, UpstreamTimeout])
def test_a_product_without_a_replica_is_refused_while_catalog_is_silent(catalog, failure):
    catalog.order(line())
    is_stored(PEN)
    catalog.fall_silent(failure)
    with pytest.raises(ServiceUnavailable, match="Nothing was done") as refusal:
        catalog.order(line(), line(BOOK))
    assert (refusal.value.status, refusal.value.retry_after) == (503, 1)
    assert len(catalog.orders.list_orders()["items"]) == 1


def test_a_replica_that_is_too_old_decides_nothing(catalog):
    catalog.order(line())
    is_stored(PEN)
    catalog.fall_silent()
    age(PEN, MAX_AGE + 1)
    with pytest.raises(ServiceUnavailable):
        catalog.order(line())
    age(PEN, MAX_AGE - 60)
    assert catalog.order(line())["status"] == "CREATED"


def test_events_keep_the_replicas_up_to_date_in_any_order_of_arrival(catalog, bus):
    lamp = product(sku="LAMP", price="40.00")
    bus.publish(ProductCreated(**lamp))
    is_stored(lamp)
    bus.publish(updated(lamp, version=3, price="42.00"))
    is_stored(lamp, version=3)
    bus.publish(updated(lamp, version=2, price="41.00"))
    bus.publish(updated(PEN, version=7, price="13.00"))
    is_stored(PEN, version=7)  # the same queue: the older version of the lamp was handled before
    assert replica(lamp)[:3] == (Decimal("42.00"), True, 3)
    catalog.fall_silent()
    assert catalog.order(line(lamp, 1))["total_amount"] == "42.00"
    with pytest.raises(PriceChanged):
        catalog.order(line(lamp, 1, price_snapshot="41.00"))


def test_several_versions_of_a_product_in_one_batch_leave_the_newest(catalog, bus):
    for version in (2, 4, 3):
        bus.publish(updated(PEN, version=version, price=f"{version}.00"))
    is_stored(PEN, version=4)
    assert replica(PEN)[0] == Decimal("4.00")


def test_a_locked_replica_delays_no_other(catalog):
    catalog.order(line())
    is_stored(PEN)
    with database("orders").begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE product_replicas SET version = 0"))
    catalog.forget_what_is_stored()
    redis.Redis.from_url(config["REDIS_URL"]).flushall()  # so that catalog is asked again
    with database("orders").begin() as connection:
        connection.execute(sqlalchemy.text("SELECT FROM product_replicas FOR UPDATE"))
        catalog.order(line(), line(BOOK))
        is_stored(BOOK)  # while the other one is locked
        assert replica(PEN)[2] == 0
    is_stored(PEN)


def test_a_product_that_cannot_be_stored_delays_no_other(catalog):
    with owned_database("orders").begin() as connection:
        connection.execute(sqlalchemy.text("ALTER TABLE product_replicas ADD CONSTRAINT no_pens CHECK (sku <> 'PEN')"))
    try:
        order = catalog.order(line(), line(BOOK))
        assert order["status"] == "CREATED"
        is_stored(BOOK)
        assert replica(PEN) is None
    finally:
        with owned_database("orders").begin() as connection:
            connection.execute(sqlalchemy.text("ALTER TABLE product_replicas DROP CONSTRAINT no_pens"))


def test_a_locked_table_of_replicas_delays_no_order_whose_products_catalog_confirms(catalog):
    with owned_database("orders").begin() as connection:
        connection.execute(sqlalchemy.text("LOCK TABLE product_replicas"))
        with eventlet.Timeout(TEST_TIMEOUT_SECONDS):
            assert catalog.order(line())["status"] == "CREATED"
        catalog.be_slow()
        assert catalog.order(line())["status"] == "CREATED"  # the replicas cannot be read, so catalog has more time


def test_a_product_that_is_no_longer_sold_is_refused(catalog, bus):
    catalog.order(line())
    is_stored(PEN)
    bus.publish(updated(PEN, version=2, is_active=False))
    is_stored(PEN, version=2)
    catalog.fall_silent()
    with pytest.raises(ProductUnavailable):
        catalog.order(line())


def test_an_event_confirms_a_product_as_of_its_own_time(catalog, bus):
    old = (datetime.now(UTC) - timedelta(seconds=MAX_AGE + 60)).isoformat()
    bus.publish(updated(PEN, version=2, updated_at=old))
    is_stored(PEN, version=2)
    assert replica(PEN)[3] > MAX_AGE
    catalog.fall_silent()
    with pytest.raises(ServiceUnavailable):
        catalog.order(line())


def test_what_catalog_confirmed_does_not_overwrite_a_newer_event(catalog, bus):
    bus.publish(updated(PEN, version=2, price="13.00"))
    is_stored(PEN, version=2)
    catalog.order(line(), line(BOOK))  # catalog still returns version 1
    is_stored(BOOK)  # stored in the same statement
    assert replica(PEN)[:3] == (Decimal("13.00"), True, 2)
