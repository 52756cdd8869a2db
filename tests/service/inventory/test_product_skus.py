"""The sku of a stock record is the catalog's: what inventory keeps of the products, and whom it asks."""

from datetime import UTC, datetime
from decimal import Decimal
from unittest.mock import Mock

import eventlet
import pytest
from eventlet.event import Event
from sqlalchemy import text

from contracts.catalog import ProductCreated, ProductUpdated
from contracts.errors import PermissionDenied, ServiceError, ServiceUnavailable, UpstreamTimeout, ValidationFailed
from contracts.ids import new_id
from contracts.inventory import StockNotFound
from contracts.orders import ProductUnavailable
from extensions.rpc.client import RpcClient
from inventory import service
from inventory.service import InventoryService
from tests.support import Caller, FakeServices, database, eventually

CUSTOMER = {"user_id": str(new_id()), "roles": ["customer"]}
NOW = datetime.now(UTC)


class Catalog:
    """A fake catalog, which can fall silent."""

    def __init__(self):
        self.products, self.calls, self.silence = {}, [], None

    def add(self, sku, version=1, product_id=None):
        product_id = product_id or new_id()
        self.products[str(product_id)] = event(product_id, sku, version).model_dump(mode="json")
        return str(product_id)

    def get_products(self, product_ids):
        self.calls.append(product_ids)
        if self.silence:
            raise self.silence
        return {"items": [self.products[each] for each in product_ids if each in self.products]}


def event(product_id, sku, version, kind=ProductUpdated):
    return kind(
        id=product_id,
        sku=sku,
        name="Pen",
        description="",
        price=Decimal("1.00"),
        currency="TRY",
        is_active=True,
        version=version,
        created_at=NOW,
        updated_at=NOW,
    )


@pytest.fixture
def catalog():
    return Catalog()


@pytest.fixture
def inventory(shared_services, catalog, caller, monkeypatch):
    [container] = shared_services(InventoryService)
    [client] = [one for one in container.dependencies if isinstance(one, RpcClient)]
    services = Mock(catalog=catalog)
    services.within.return_value = services
    monkeypatch.setattr(client, "_services", FakeServices(services))
    return caller.inventory


def replicas():
    with database("inventory").connect() as connection:
        return {
            str(product_id): (sku, version)
            for product_id, sku, version in connection.execute(text("SELECT id, sku, version FROM product_replicas"))
        }


def sku_of(inventory, product_id):
    return inventory.get_stock(product_id)["product_sku"]


def is_refused_for_its_sku(inventory, product_id, sku):
    with pytest.raises(ValidationFailed) as refusal:
        inventory.set_stock(product_id, sku, 1)
    return [error.field for error in refusal.value.errors] == ["product_sku"]


def test_a_product_that_is_not_known_yet_is_asked_for_once(inventory, catalog):
    product_id = catalog.add("PEN-1")
    assert inventory.set_stock(product_id, quantity=1)["product_sku"] == "PEN-1"
    assert inventory.set_stock(product_id, "PEN-1", 2)["product_sku"] == "PEN-1"
    assert catalog.calls == [[product_id]]
    assert replicas() == {product_id: ("PEN-1", 1)}


def test_an_unknown_product_is_refused(inventory, catalog):
    unknown = str(new_id())
    with pytest.raises(ProductUnavailable, match="product_id: there is no product"):
        inventory.set_stock(unknown, "PEN-1", 1)
    with pytest.raises(StockNotFound):
        inventory.get_stock(unknown)


def test_a_refusal_is_stored_under_its_key(inventory, catalog):
    product_id = str(new_id())
    for _ in range(2):
        with pytest.raises(ProductUnavailable):
            inventory.set_stock(product_id, quantity=1, idempotency_key="k")
        catalog.add("PEN-1", product_id=product_id)
    assert len(catalog.calls) == 1


def test_another_sku_is_refused(inventory, catalog):
    product_id = catalog.add("PEN-1")
    assert is_refused_for_its_sku(inventory, product_id, "PEN-2")
    with pytest.raises(StockNotFound):
        inventory.get_stock(product_id)
    inventory.set_stock(product_id, "PEN-1", 1)
    assert is_refused_for_its_sku(inventory, product_id, "pen-1")


@pytest.mark.parametrize("failure", [ServiceUnavailable, UpstreamTimeout])
def test_without_catalog_the_replica_decides(inventory, catalog, bus, failure):
    known = new_id()
    bus.publish(event(known, "PEN-1", 1, ProductCreated))
    eventually(lambda: str(known) in replicas())
    catalog.silence = failure()
    assert inventory.set_stock(str(known), "PEN-1", 1)["product_sku"] == "PEN-1"
    assert is_refused_for_its_sku(inventory, str(known), "PEN-2")
    with pytest.raises(ServiceUnavailable, match="catalog does not respond") as refusal:
        inventory.set_stock(str(new_id()), "PEN-1", 1)
    assert refusal.value.retry_after == 1


def test_a_catalog_that_hangs_leaves_workers_to_other_calls(inventory, catalog, monkeypatch):
    """More calls than inventory has workers: those beyond the bulkhead are refused before catalog responds."""
    responds, hanging, outcomes = Event(), [], []

    def hang(product_ids):
        hanging.append(product_ids)
        responds.wait()
        return {"items": []}

    def set_stock():
        try:
            Caller().inventory.set_stock(str(new_id()), "PEN-1", 1)
        except ServiceError as error:
            outcomes.append(type(error))

    monkeypatch.setattr(catalog, "get_products", hang)
    calls = [eventlet.spawn(set_stock) for _ in range(30)]
    eventually(lambda: len(outcomes) == 30 - service.CATALOG_CALLS)
    assert set(outcomes) == {ServiceUnavailable}
    assert len(hanging) == service.CATALOG_CALLS
    assert inventory.list_stock()["items"] == []
    responds.send()
    for call in calls:
        call.wait()
    assert outcomes[-service.CATALOG_CALLS :] == [ProductUnavailable] * service.CATALOG_CALLS


def test_a_result_is_repeated_without_catalog(inventory, catalog):
    product_id = catalog.add("PEN-1")
    first = inventory.set_stock(product_id, "PEN-1", 1, idempotency_key="k")
    with database("inventory").begin() as connection:
        connection.execute(text("UPDATE product_replicas SET sku = 'PEN-2', version = 2"))
    catalog.silence = ServiceUnavailable()
    assert inventory.set_stock(product_id, "PEN-1", 1, idempotency_key="k") == first


def test_a_sku_that_the_replica_does_not_have_yet_is_accepted(inventory, catalog):
    product_id = catalog.add("PEN-1")
    inventory.set_stock(product_id, quantity=1)
    catalog.add("PEN-2", 2, product_id)
    assert inventory.set_stock(product_id, "PEN-2", 3)["product_sku"] == "PEN-2"
    assert sku_of(inventory, product_id) == "PEN-2"


def test_a_changed_sku_reaches_the_stock_record(inventory, catalog, bus):
    product_id = catalog.add("PEN-1")
    before = inventory.set_stock(product_id, quantity=5)
    bus.publish(event(product_id, "PEN-2", 2))
    eventually(lambda: sku_of(inventory, product_id) == "PEN-2")
    after = inventory.get_stock(product_id)
    assert (after["on_hand"], after["updated_at"] > before["updated_at"]) == (5, True)


@pytest.mark.parametrize("versions", [(2, 1, 3), (3, 2, 1), (1, 3, 3, 2)])
def test_the_highest_version_wins_in_every_order_of_arrival(inventory, catalog, bus, versions):
    product_id, marker = catalog.add("PEN-0", 0), new_id()
    inventory.set_stock(product_id, quantity=5)
    for version in versions:
        bus.publish(event(product_id, f"PEN-{version}", version))
        eventually(lambda version=version: replicas()[product_id][1] >= version)
    bus.publish(event(marker, "MARKER", 1))
    eventually(lambda: str(marker) in replicas())
    assert replicas()[product_id] == ("PEN-3", 3)
    assert sku_of(inventory, product_id) == "PEN-3"


def test_an_old_result_of_catalog_does_not_replace_a_newer_sku(inventory, catalog, bus):
    """The event arrives while catalog is asked: its reply is from before the change."""
    product_id = catalog.add("PEN-1")
    ask = catalog.get_products

    def slow(product_ids):
        reply = ask(product_ids)
        bus.publish(event(product_id, "PEN-2", 2))
        eventually(lambda: product_id in replicas())
        return reply

    catalog.get_products = slow
    assert inventory.set_stock(product_id, quantity=1)["product_sku"] == "PEN-2"


def test_a_sku_is_that_of_one_stock_record(inventory, catalog, bus):
    """Two products exchange a sku, as when a new product gets the former sku of another one."""
    first = catalog.add("PEN-1")
    inventory.set_stock(first, quantity=1)
    bus.publish(event(first, "PEN-OLD", 2))
    second = catalog.add("PEN-1")
    inventory.set_stock(second, quantity=1)
    eventually(lambda: sku_of(inventory, first) == "PEN-OLD")
    assert sorted(item["product_sku"] for item in inventory.list_stock()["items"]) == ["PEN-1", "PEN-OLD"]


def test_the_role_is_checked_before_catalog_is_asked(inventory, catalog):
    with pytest.raises(PermissionDenied):
        inventory.set_stock(str(new_id()), "PEN-1", 1, actor=CUSTOMER)
    assert catalog.calls == []
