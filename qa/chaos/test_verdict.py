"""Each check of the verdict fails on data that violates just its invariant."""

from collections import Counter
from types import SimpleNamespace

import pytest

from payments.provider import Operation
from qa.chaos import verdict
from qa.chaos.crash_points import HANDLER_BEFORE_ACK, ArmedPoint
from qa.chaos.load import SCARCE, OrderRequest
from qa.chaos.provider_records import Memory, ProviderRefuses

LOW, HIGH, RARE, NONE, SELLING = ({"id": name} for name in ("low", "high", "rare", "none", "selling"))


@pytest.fixture
def load():
    """Two orders; the customer has cancelled the second one."""
    products = [LOW, HIGH, RARE, NONE, SELLING]
    catalogue = SimpleNamespace(low=LOW, high=HIGH, scarce=[RARE], without_stock=NONE, all=products)
    requests = [OrderRequest(number, f"key-{number}", 0.0, 201, order_id=f"order-{number}") for number in (1, 2)]
    requests[1].done.add("cancel")
    return SimpleNamespace(requests=requests, accepted=requests, catalogue=catalogue, restocked=Counter())


@pytest.fixture
def orders():
    return {
        "order-1": {"status": "CONFIRMED", "total_amount": "10.00"},
        "order-2": {"status": "CANCELLED", "total_amount": "20.00"},
    }


@pytest.fixture
def lines():
    """Order lines that encode the numbers 1 and 2, as the load writes them."""
    return {"order-1": Counter(low=2, high=1, rare=1), "order-2": Counter(low=3, high=1)}


def broken(checks):
    return {check.name: check.ids for check in checks if check.ids}


def test_correct_data_passes_all_checks(load, orders, lines):
    assert not broken(verdict._existence(load, orders, lines))
    assert not verdict._reverted_commands(load, orders)
    assert not verdict._oversold(load, orders, lines)
    assert not broken(verdict._money(orders, {"order-1": ("10.00", {"capture"}), "order-2": ("20.00", {"void"})}))


def test_a_lost_order_is_found(load, orders, lines):
    del orders["order-2"]
    assert broken(verdict._existence(load, orders, lines)) == {"no accepted order lost": ["order-2"]}


def test_a_duplicated_order_is_found(load, orders, lines):
    orders["order-3"], lines["order-3"] = orders["order-1"], lines["order-1"]
    found = broken(verdict._existence(load, orders, lines))
    assert found["no order made twice"] == ["order-1 order-3"]
    assert found["no order that no client requested"] == ["order-3"]


def test_an_unrequested_order_is_found(load, orders, lines):
    orders["order-9"], lines["order-9"] = orders["order-1"], Counter(low=10, high=1)
    assert broken(verdict._existence(load, orders, lines)) == {"no order that no client requested": ["order-9"]}


def test_a_reverted_cancellation_is_found(load, orders):
    orders["order-2"]["status"] = "CONFIRMED"
    assert verdict._reverted_commands(load, orders) == ["order-2 cancel"]


def test_overselling_is_found(load, orders, lines):
    lines["order-1"]["rare"] = SCARCE + 1
    assert verdict._oversold(load, orders, lines) == ["rare"]
    load.restocked["rare"] = 1
    assert not verdict._oversold(load, orders, lines)
    lines["order-1"]["none"] = 1
    assert verdict._oversold(load, orders, lines) == ["none"]


@pytest.mark.parametrize(
    ("accounts", "name", "order"),
    [
        (
            {"order-1": ("10.00", {"capture"}), "order-2": ("20.00", {"capture"})},
            "provider: only confirmed orders are charged",
            "order-2",
        ),
        (
            {"order-1": ("10.00", {"void"}), "order-2": ("20.00", {"void"})},
            "provider: every confirmed order is charged",
            "order-1",
        ),
        (
            {"order-1": ("11.00", {"capture"}), "order-2": ("20.00", {"void"})},
            "provider: the charge is the order's total",
            "order-1",
        ),
        (
            {"order-1": ("10.00", {"capture"}), "order-2": ("20.00", set())},
            "provider: no authorisation left of a cancelled order",
            "order-2",
        ),
    ],
)
def test_a_wrong_charge_is_found(orders, accounts, name, order):
    assert broken(verdict._money(orders, accounts)) == {name: [order]}


def test_the_provider_refuses_contradictory_operations(tmp_path):
    provider, other = Memory(tmp_path), Memory(tmp_path)
    provider.authorise(SimpleNamespace(key="order-1:authorise", amount="10.00"), "auth_1")
    provider.authorise(SimpleNamespace(key="order-2:authorise", amount="20.00"), "auth_2")
    provider.move(Operation.CAPTURE, None, "auth_1")
    other.move(Operation.CAPTURE, None, "auth_1")
    with pytest.raises(ProviderRefuses):
        other.move(Operation.VOID, None, "auth_1")
    other.move(Operation.REFUND, None, "auth_1")
    provider.move(Operation.VOID, None, "auth_2")
    for operation in (Operation.CAPTURE, Operation.REFUND):
        with pytest.raises(ProviderRefuses):
            other.move(operation, None, "auth_2")
    with pytest.raises(ProviderRefuses):
        other.move(Operation.REFUND, None, "auth_never_given")
    assert other.accounts() == {"order-1": ("10.00", {"capture", "refund"}), "order-2": ("20.00", {"void"})}


def test_an_armed_point_triggers_exactly_once(tmp_path):
    armed_point = ArmedPoint(tmp_path, "orders", HANDLER_BEFORE_ACK)
    assert not armed_point.trigger()
    armed_point.arm()
    assert armed_point.trigger()
    assert armed_point.hit.exists()
    assert not armed_point.trigger()
    armed_point.arm()
    armed_point.disarm()
    assert not armed_point.trigger()
