"""Imports of stock: by product or sku, with a ledger entry for each change. How files arrive is tested in catalog."""

from unittest.mock import Mock

import pytest

from contracts.catalog import ProductCreated
from contracts.ids import new_id
from extensions.storage import imports
from inventory.service import InventoryService
from tests.service.catalog.test_imports import counts, run
from tests.support import eventually, stated  # noqa: F401

CUP, MUG, BOWL = (new_id() for _ in range(3))
HEADER = "product_id,product_sku,quantity\n"


@pytest.fixture
def inventory(run_service, caller, bus):
    run_service(InventoryService, services=Mock())
    for product_id, sku in ((CUP, "CUP"), (MUG, "MUG"), (BOWL, "BOWL")):
        at = "2026-01-01T00:00:00Z"
        product = {"id": product_id, "sku": sku, "name": sku, "description": "", "price": "1.00", "currency": "TRY"}
        bus.publish(ProductCreated(**product, is_active=True, version=1, created_at=at, updated_at=at))
    eventually(lambda: counts(run(caller.inventory, "product_sku,quantity\nCUP,5\nMUG,5\nBOWL,0\n"))[3] == 0)
    return caller.inventory


def entries(inventory, product_id):
    found = inventory.list_movements(str(product_id))["items"]
    return [(one["kind"], one["on_hand_delta"], one["reason"]) for one in found]


def test_quantities_are_set_by_id_and_by_sku(inventory):
    done = run(inventory, f"{HEADER}{CUP},,7\n,mug,5\n{BOWL},BOWL,1\n")
    assert (done["status"], counts(done)) == ("DONE", (0, 2, 1, 0))
    assert entries(inventory, CUP) == [("SET", 2, "import"), ("FIRST", 5, "import")]
    assert entries(inventory, MUG) == [("FIRST", 5, "import")]
    assert inventory.get_stock(str(BOWL))["on_hand"] == 1


BAD = f"{HEADER}{CUP},,7\n,NONE,1\n{MUG},CUP,1\n{new_id()},,1\n{CUP},,8\n,cup,9\n,,1\n{MUG},,-1\n"


def test_bad_rows_are_skipped(inventory):
    done = run(inventory, BAD, mode="skip_bad")
    assert (done["status"], counts(done)) == ("DONE", (0, 1, 0, 7))
    assert [error["line"] for error in done["errors"]] == [3, 4, 5, 6, 7, 8, 9]
    assert inventory.get_stock(str(CUP))["on_hand"] == 7


@pytest.mark.parametrize("bad", [",NONE,1\n", f"{MUG},CUP,1\n", ",,1\n"])
def test_one_bad_row_changes_nothing(inventory, bad):
    done = run(inventory, f"{HEADER}{CUP},,7\n{bad}")
    assert (done["status"], counts(done)) == ("REJECTED", (0, 0, 0, 1))
    assert inventory.get_stock(str(CUP))["on_hand"] == 5


def test_less_than_what_is_reserved_is_an_error(inventory, bus):
    order = {"order_id": new_id(), "user_id": new_id(), "total_amount": "3.00", "currency": "TRY"}
    from contracts.orders import OrderCreated

    line = {"product_id": CUP, "product_sku": "CUP", "quantity": 3, "price_snapshot": "1.00"}
    bus.publish(OrderCreated(**order, items=(line,)))
    eventually(lambda: inventory.get_stock(str(CUP))["reserved"] == 3)
    for mode, changed in (("all_or_nothing", 5), ("skip_bad", 9)):
        done = run(inventory, f"{HEADER}{CUP},,2\n{MUG},,9\n", mode=mode)
        assert [(error["line"], error["field"]) for error in done["errors"]] == [(2, "quantity")]
        assert inventory.get_stock(str(MUG))["on_hand"] == changed
    assert inventory.get_stock(str(CUP))["on_hand"] == 5


def test_an_import_of_all_or_nothing_is_bounded(inventory, monkeypatch):
    monkeypatch.setattr(imports, "MOST_AT_ONCE", 1)
    done = run(inventory, f"{HEADER}{CUP},,7\n{MUG},,7\n")
    assert (done["status"], done["failed"]) == ("REJECTED", 1)
    assert counts(run(inventory, f"{HEADER}{CUP},,7\n{MUG},,7\n", mode="skip_bad")) == (0, 2, 0, 0)
