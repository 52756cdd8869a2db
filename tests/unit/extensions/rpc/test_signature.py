"""Typed arguments are sent as flat JSON and decoded again; the annotations say which arguments a caller may pass."""

from typing import Protocol
from uuid import UUID

import pytest

from contracts.base import OPERATOR, Actor
from contracts.catalog import CatalogRpc, ProductFilter, UpdateProduct
from contracts.errors import ValidationFailed
from contracts.inventory import InventoryRpc
from contracts.operations import DeadLetterSearch, OperatedRpc
from contracts.orders import CreateOrder, OrderFilter, OrdersRpc
from extensions.rpc.signature import WireArguments, WireSignature, rpc_methods

ID = "0190a6b2-0000-7000-8000-000000000001"
USER = Actor(user_id=UUID(ID), roles=("customer",))
LINE = {"product_id": ID, "quantity": 2}


class Toys(Protocol):
    def untyped(self, first, second=2, *others, **more): ...

    def with_arrived(self, order: CreateOrder, arrived: WireArguments = ...): ...


def sent(method, *args, **kwargs):
    return WireSignature(method).encode(args, kwargs)


def received(method, *args, **kwargs):
    signature = WireSignature(method)
    return signature.decode(signature.bind(args, kwargs))


@pytest.mark.parametrize(
    ("method", "wire"),
    [
        (
            OrdersRpc.create_order,
            "(items, total_amount=None, payment_method=None, shipping_address=None, actor=None, idempotency_key=None)",
        ),
        (
            OrdersRpc.list_orders,
            "(status=None, created_after=None, created_before=None, user_id=None, limit=None, cursor=None, actor=None)",
        ),
        (OrdersRpc.get_order, "(order_id, actor=None)"),
        (CatalogRpc.update_product, "(product_id, actor=None, if_match=None, **changes)"),
        (
            OperatedRpc.list_dead_letters,
            (
                "(limit=None, cursor=None, queue=None, event=None, replayed=None, group=None, correlation_id=None,"
                " actor=None)"
            ),
        ),
        (OperatedRpc.health, "()"),
        (
            InventoryRpc.set_stock,
            "(product_id, product_sku=None, quantity=None, actor=None, idempotency_key=None)",
        ),
        (Toys.untyped, "(first, second=None, *others, **more)"),
        (Toys.with_arrived, "(items, total_amount=None, payment_method=None, shipping_address=None)"),
    ],
)
def test_the_fields_of_a_request_stand_in_its_place(method, wire):
    assert str(WireSignature(method).wire) == wire


class TestSending:
    def test_only_fields_that_are_set_are_sent(self):
        order = CreateOrder.parse({"items": [LINE]})
        assert sent(OrdersRpc.create_order, order, actor=USER, idempotency_key="k") == {
            "items": [LINE],
            "actor": {"user_id": ID, "roles": ["customer"]},
            "idempotency_key": "k",
        }

    def test_ids_are_strings_and_defaults_are_left_out(self):
        assert sent(OrdersRpc.get_order, UUID(ID), actor=OPERATOR) == {"order_id": ID}
        assert sent(OrdersRpc.create_order, order=CreateOrder.parse({"items": [LINE]}), idempotency_key=None) == {
            "items": [LINE]
        }

    def test_changes_are_named_arguments(self):
        changes = UpdateProduct.parse({"price": "9.9"})
        assert sent(CatalogRpc.update_product, UUID(ID), if_match=['"a"'], changes=changes) == {
            "product_id": ID,
            "if_match": ['"a"'],
            "price": "9.90",
        }

    def test_fields_that_only_a_subclass_has_stay_here(self):
        search = DeadLetterSearch.parse({"service": "orders", "queue": "q", "limit": 5})
        assert sent(OperatedRpc.list_dead_letters, search) == {"queue": "q", "limit": 5}

    @pytest.mark.parametrize(("args", "kwargs"), [((1, 2), {}), ((1,), {"order_id": 1}), ((), {"colour": "red"})])
    def test_a_call_that_the_interface_does_not_have_is_a_type_error(self, args, kwargs):
        with pytest.raises(TypeError):
            sent(OrdersRpc.get_order, *args, **kwargs)


class TestReceiving:
    def test_arguments_by_name(self):
        found = received(OrdersRpc.create_order, items=[LINE], actor={"user_id": ID, "roles": ["customer"]})
        assert found == {"order": CreateOrder.parse({"items": [LINE]}), "actor": USER}
        assert found["order"].model_fields_set == {"items"}

    def test_arguments_by_place(self):
        found = received(OrdersRpc.list_orders, "CREATED", None, None, ID, 5)
        assert found["wanted"] == OrderFilter.parse({"status": "CREATED", "user_id": ID, "limit": 5})
        assert received(OrdersRpc.get_order, ID, None) == {"order_id": UUID(ID), "actor": OPERATOR}

    def test_a_required_field_after_an_optional_one(self):
        assert received(InventoryRpc.set_stock, ID, "PEN-1", 5)["stock"].quantity == 5
        with pytest.raises(ValidationFailed, match="quantity: is required"):
            received(InventoryRpc.set_stock, ID, "PEN-1")

    def test_without_arguments_a_request_has_its_defaults(self):
        assert received(CatalogRpc.list_products) == {"wanted": ProductFilter()}

    def test_changes(self):
        found = received(CatalogRpc.update_product, ID, None, ['"a"'], price="9.9")
        assert found["if_match"] == ['"a"']
        assert found["changes"].changes == UpdateProduct.parse({"price": "9.90"}).changes

    @pytest.mark.parametrize(
        ("method", "arguments", "field"),
        [
            (OrdersRpc.get_order, {"order_id": "42"}, "order_id"),
            (OrdersRpc.get_order, {"order_id": ID, "actor": {}}, "actor.user_id"),
            (OrdersRpc.create_order, {"items": []}, "items"),
            (OrdersRpc.list_orders, {"limit": 101}, "limit"),
            (CatalogRpc.update_product, {"product_id": ID, "colour": "red"}, "colour"),
        ],
    )
    def test_a_wrong_argument_is_named(self, method, arguments, field):
        with pytest.raises(ValidationFailed) as refusal:
            received(method, **arguments)
        assert [error.field for error in refusal.value.errors] == [field]

    @pytest.mark.parametrize(
        ("method", "args", "kwargs", "message"),
        [
            (OrdersRpc.create_order, (), {}, "missing a required argument: 'items'"),
            (OrdersRpc.list_orders, (), {"colour": "red"}, "got an unexpected keyword argument 'colour'"),
            (OrdersRpc.list_orders, (), {"wanted": {}}, "got an unexpected keyword argument 'wanted'"),
            (OrdersRpc.get_order, (ID, None, None), {}, "too many positional arguments"),
            (OrdersRpc.get_order, (ID,), {"order_id": ID}, "multiple values for argument 'order_id'"),
            (Toys.with_arrived, ([],), {"arrived": {}}, "got an unexpected keyword argument 'arrived'"),
        ],
    )
    def test_a_call_that_does_not_fit_is_a_type_error(self, method, args, kwargs, message):
        with pytest.raises(TypeError, match=message):
            received(method, *args, **kwargs)

    def test_a_method_can_have_the_arguments_as_they_arrived(self):
        line = LINE | {"product_id": ID.upper()}
        found = received(Toys.with_arrived, [line])
        assert found["arrived"] == {"items": [line]}
        assert found["order"] == CreateOrder.parse({"items": [LINE]})

    def test_a_variadic_method_is_called_as_python_would(self):
        signature = WireSignature(Toys.untyped)
        for args, kwargs in [((1,), {}), ((1, 2, 3), {"fourth": 4}), ((), {"first": 1})]:
            seen = signature.call(lambda _, *some, **named: (some, named), None, signature.bind(args, kwargs))
            assert seen == ((args or (1,)), {key: value for key, value in kwargs.items() if key != "first"})

    def test_arguments_without_annotations_stay_as_they_are(self):
        found = received(Toys.untyped, 1, "2", [3], fourth={})
        assert found == {"first": 1, "second": "2", "others": ([3],), "more": {"fourth": {}}}


def test_what_is_sent_is_what_is_received():
    order, key = CreateOrder.parse({"items": [LINE], "total_amount": "1.50"}), "k"
    arguments = sent(OrdersRpc.create_order, order, actor=USER, idempotency_key=key)
    assert received(OrdersRpc.create_order, **arguments) == {"order": order, "actor": USER, "idempotency_key": key}


def test_the_methods_of_an_interface_are_its_own_and_inherited_ones():
    assert {"create_order", "health"} <= rpc_methods(OrdersRpc).keys()
    assert not [name for name in rpc_methods(OrdersRpc) if name.startswith("_")]
