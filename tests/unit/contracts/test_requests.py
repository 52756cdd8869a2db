"""The validation of requests and of actors."""

import time
from uuid import uuid4

import pytest

from contracts.base import MAX_PAGE, OPERATOR, Actor, PageRequest
from contracts.catalog import CreateProduct, UpdateProduct
from contracts.errors import PermissionDenied, ValidationFailed
from contracts.ids import new_id
from contracts.inventory import SetStock
from contracts.operations import ConsistencyRequest, DeadLetterFilter
from contracts.orders import MAX_LINES, CreateOrder, OrderFilter, SagaFilter
from contracts.payments import PaymentFilter
from contracts.users import Credentials, UpdateUser


def line(**changes):
    return {"product_id": str(new_id()), "quantity": 1} | changes


def wrong_fields(request, data):
    with pytest.raises(ValidationFailed) as refusal:
        request.parse(data)
    fields = [error.field for error in refusal.value.errors]
    assert all(f"{field or 'body'}: " in str(refusal.value) for field in fields)
    return fields


@pytest.mark.parametrize(
    ("data", "fields"),
    [
        ({}, ["items"]),
        ({"items": []}, ["items"]),
        ({"items": [line()] * (MAX_LINES + 1)}, ["items"]),
        ({"items": [line(quantity=0)]}, ["items[0].quantity"]),
        ({"items": [line(), line(price_snapshot=1.5)]}, ["items[1].price_snapshot"]),
        ({"items": [line(colour="red")]}, ["items[0].colour"]),
        ({"items": [line(quantity="2"), line(product_id="7")]}, ["items[0].quantity", "items[1].product_id"]),
        ({"items": [line()], "total": "1.00"}, ["total"]),
        ({"items": [line()], "total_amount": 1}, ["total_amount"]),
        ({"items": "none"}, ["items"]),
        ([], [""]),
        ({"\ud800": 1, "items": []}, [""]),
    ],
)
def test_every_wrong_field_is_named_by_its_path(data, fields):
    assert wrong_fields(CreateOrder, data) == fields


@pytest.mark.parametrize(
    ("request_class", "data", "words"),
    [
        (CreateOrder, {"items": []}, "items: must have at least 1 item"),
        (DeadLetterFilter, {"queue": ""}, "queue: must have at least 1 character"),
        (DeadLetterFilter, {"queue": "q" * 256}, "queue: must have at most 255 characters"),
        (ConsistencyRequest, {"since": "2026-01-31T08:30:00 03:00"}, "since: .* the . of an offset is written %2B"),
        (
            CreateProduct,
            {"sku": "a b", "name": "x", "price": "1.00"},
            "sku: may have letters, digits",
        ),
        (CreateOrder, {"items": [line()], "payment_method": "visa"}, "payment_method: is not a payment method of the"),
        (SagaFilter, {"stuck": "yes"}, "stuck: must be true or false"),
        (DeadLetterFilter, {"replayed": "1"}, "replayed: must be true or false"),
        (ConsistencyRequest, {"since": "2026-13-01T00:00:00Z"}, "since: must be an RFC 3339 time, .*: month value"),
    ],
)
def test_what_is_wrong_is_said_in_words(request_class, data, words):
    with pytest.raises(ValidationFailed, match=words):
        request_class.parse(data)


def in_a_request(made):
    return {
        "items[0].product_id": (CreateOrder, {"items": [line(product_id=made)]}),
        "user_id": (OrderFilter, {"user_id": made}),
        "order_id": (PaymentFilter, {"order_id": made}),
        "product_id": (SetStock, {"product_id": made, "product_sku": "A", "quantity": 1}),
    }


def test_an_id_has_one_spelling_wherever_a_client_states_it():
    known = str(new_id())
    for request_class, data in [*in_a_request(known.upper()).values(), *in_a_request(str(uuid4())).values()]:
        request_class.parse(data)
    for other in ("{" + known + "}", "urn:uuid:" + known, known.replace("-", ""), known[:-1], 7):
        for field, (request_class, data) in in_a_request(other).items():
            assert wrong_fields(request_class, data) == [field]


@pytest.mark.parametrize("item", [{}, 1, None])
def test_a_list_that_is_too_long_is_refused_before_its_items_are_looked_at(item):
    """As many as a body of 64 KiB can hold: naming what is wrong with each would take a tenth of a second."""
    began = time.thread_time()
    with pytest.raises(ValidationFailed, match=r"^items: must have at most 100 items$"):
        CreateOrder.parse({"items": [item] * 21_800})
    with pytest.raises(ValidationFailed, match=r"^roles: must have at most 2 items$"):
        UpdateUser.parse({"roles": [item] * 21_800})
    assert time.thread_time() - began < 0.02


@pytest.mark.parametrize("request_class", [CreateProduct, UpdateProduct, Credentials, UpdateUser, PageRequest, Actor])
def test_no_request_takes_an_unknown_field(request_class):
    assert "pirce" in wrong_fields(request_class, {"pirce": "1.00"})


def test_a_partial_update_knows_what_was_stated_and_takes_no_null():
    assert UpdateProduct.parse({}).changes == {}
    assert UpdateProduct.parse({"description": ""}).changes == {"description": ""}
    nothing = dict.fromkeys(UpdateProduct.model_fields)
    assert wrong_fields(UpdateProduct, nothing) == list(nothing)


@pytest.mark.parametrize("limit", [0, MAX_PAGE + 1, True, "20", 2.5, None])
def test_a_page_has_bounds(limit):
    assert wrong_fields(PageRequest, {"limit": limit}) == ["limit"]


def test_no_actor_is_the_operator_who_may_do_everything():
    assert Actor.of(None) is OPERATOR
    OPERATOR.require_admin()
    assert OPERATOR.may_see(new_id())


def test_a_customer_sees_what_is_theirs_and_an_admin_everything():
    me = new_id()
    customer = Actor.of({"user_id": str(me), "roles": ["customer"]})
    assert customer.may_see(me)
    assert not customer.may_see(new_id())
    with pytest.raises(PermissionDenied):
        customer.require_admin()
    admin = Actor.of({"user_id": str(me), "roles": ["customer", "admin"]})
    admin.require_admin()
    assert admin.may_see(new_id())


@pytest.mark.parametrize(
    "actor",
    [
        {},
        {"user_id": None, "roles": ["customer"]},
        {"user_id": "7"},
        {"roles": "admin"},
        {"role": "admin"},
        [],
        "operator",
    ],
)
def test_what_is_no_actor(actor):
    with pytest.raises(ValidationFailed):
        Actor.of(actor)
