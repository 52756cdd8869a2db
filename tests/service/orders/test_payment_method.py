"""The payment method of an order: stored, announced, part of what an idempotency key stands for, and refused."""

import pytest
import sqlalchemy
from nameko import config

from contracts.errors import IdempotencyKeyReused, ValidationFailed
from contracts.orders import OrderCreated
from orders.service import OrdersService
from tests.service.orders.test_service import ALICE, catalog, line  # noqa: F401 - catalog is a fixture
from tests.support import database


@pytest.fixture
def orders(run_service, caller, catalog):  # noqa: F811
    run_service(OrdersService, services=catalog)
    return caller.orders


def stored(order):
    with database("orders").connect() as connection:
        statement = sqlalchemy.text("SELECT payment_method FROM orders WHERE id = :id")
        return connection.scalar(statement, {"id": order["id"]})


@pytest.mark.parametrize("stated", [{}, {"payment_method": "pm_slow_300"}])
def test_is_stored_and_announced(orders, bus, stated):
    order = orders.create_order([line()], actor=ALICE, **stated)
    [created] = bus.wait_for("order.created", order["id"])
    assert created.payment_method == stored(order) == stated.get("payment_method", "pm_ok")


@pytest.mark.parametrize("method", ["visa", "pm_slow_", "pm_error_x", "", None, 1])
def test_an_unknown_one_is_refused(orders, method):
    with pytest.raises(ValidationFailed) as refusal:
        orders.create_order([line()], actor=ALICE, payment_method=method)
    assert [error.field for error in refusal.value.errors] == ["payment_method"]
    assert orders.list_orders()["items"] == []


@pytest.mark.parametrize(
    ("settings", "is_refused"),
    [
        ({"ENVIRONMENT": "production", "PAYMENT_PROVIDER": "http"}, True),
        ({"ENVIRONMENT": "production", "PAYMENT_PROVIDER": "simulated"}, False),
        ({"ENVIRONMENT": "development", "PAYMENT_PROVIDER": "http"}, False),
    ],
)
def test_only_the_simulated_provider_takes_one_in_production(orders, settings, is_refused):
    with config.patch(settings):
        assert orders.create_order([line()], actor=ALICE)["status"] == "CREATED"
        if not is_refused:
            assert orders.create_order([line()], actor=ALICE, payment_method="pm_ok")["status"] == "CREATED"
            return
        with pytest.raises(ValidationFailed) as refusal:
            orders.create_order([line()], actor=ALICE, payment_method="pm_ok")
        assert [error.field for error in refusal.value.errors] == ["payment_method"]


def test_is_a_part_of_what_an_idempotency_key_stands_for(orders):
    first = orders.create_order([line()], actor=ALICE, idempotency_key="k", payment_method="pm_declined")
    again = orders.create_order([line()], actor=ALICE, idempotency_key="k", payment_method="pm_declined")
    assert again["id"] == first["id"]
    with pytest.raises(IdempotencyKeyReused):
        orders.create_order([line()], actor=ALICE, idempotency_key="k", payment_method="pm_ok")


def test_an_event_of_the_previous_version_has_the_default():
    event = OrderCreated.model_validate(
        {"order_id": ALICE["user_id"], "user_id": ALICE["user_id"], "total_amount": "1.00", "currency": "TRY"}
        | {"items": []}
    )
    assert event.payment_method == "pm_ok"
