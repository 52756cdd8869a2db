"""The state machine of an order in isolation. qa/model combines it with the rules of inventory and payments."""

from itertools import product

import pytest

from contracts import inventory as stock_events
from contracts import payments as payment_events
from contracts.inventory import StockFailed, StockReleased, StockReserved
from contracts.orders import CancelReason, OrderStatus
from contracts.payments import PaymentAuthorized, PaymentCaptured, PaymentFailed, PaymentRefunded
from orders import saga
from orders.saga import Command, Saga

CREATED, CONFIRMED, SHIPPED, DELIVERED, CANCELLED = OrderStatus


@pytest.mark.parametrize(
    ("before", "reply", "after"),
    [
        (Saga(), StockReserved, Saga(stock="RESERVED")),
        (Saga(), PaymentAuthorized, Saga(payment="AUTHORIZED")),
        (Saga(payment="AUTHORIZED"), StockReserved, Saga(CONFIRMED, "RESERVED", "AUTHORIZED")),
        (Saga(stock="RESERVED"), PaymentAuthorized, Saga(CONFIRMED, "RESERVED", "AUTHORIZED")),
        (Saga(), StockFailed, Saga(CANCELLED, "FAILED", "PENDING", CancelReason.OUT_OF_STOCK)),
        (Saga(), PaymentFailed, Saga(CANCELLED, "PENDING", "FAILED", CancelReason.PAYMENT_FAILED)),
        (
            Saga(payment="AUTHORIZED"),
            StockFailed,
            Saga(CANCELLED, "FAILED", "AUTHORIZED", CancelReason.OUT_OF_STOCK),
        ),
        (
            Saga(stock="RESERVED"),
            PaymentFailed,
            Saga(CANCELLED, "RESERVED", "FAILED", CancelReason.PAYMENT_FAILED),
        ),
    ],
)
def test_a_reply_sets_the_status_of_its_service(before, reply, after):
    assert saga.apply_reply(before, reply) == after
    assert saga.apply_reply(after, reply) == after  # a duplicate changes nothing


def test_late_replies_never_move_a_status_back():
    released = saga.apply_reply(Saga(CANCELLED, cancel_reason=CancelReason.USER), StockReleased)
    assert saga.apply_reply(released, StockReserved) == released
    refunded = saga.apply_reply(Saga(CANCELLED, cancel_reason=CancelReason.USER), PaymentRefunded)
    assert saga.apply_reply(saga.apply_reply(refunded, PaymentCaptured), PaymentAuthorized) == refunded


def test_a_release_of_committed_stock_is_a_return():
    committed = Saga(CANCELLED, "COMMITTED", "CAPTURED", CancelReason.USER)
    assert saga.apply_reply(committed, StockReleased, returned=True).stock == "RETURNED"


@pytest.mark.parametrize(("status", "command"), list(product(OrderStatus, Command)))
def test_every_command_in_every_status(status, command):
    possible = {
        CREATED: {Command.CANCEL_BY_USER, Command.CANCEL_BY_ADMIN, Command.EXPIRE},
        CONFIRMED: {Command.CANCEL_BY_USER, Command.CANCEL_BY_ADMIN, Command.SHIP},
        SHIPPED: {Command.DELIVER},
        DELIVERED: set(),
        CANCELLED: set(),
    }
    leads_to = {
        Command.CANCEL_BY_USER: (CANCELLED, CancelReason.USER),
        Command.CANCEL_BY_ADMIN: (CANCELLED, CancelReason.ADMIN),
        Command.EXPIRE: (CANCELLED, CancelReason.TIMEOUT),
        Command.SHIP: (SHIPPED, None),
        Command.DELIVER: (DELIVERED, None),
    }
    after = saga.apply_command(Saga(status), command)
    if command in possible[status]:
        assert (after.status, after.cancel_reason) == leads_to[command]
    else:
        assert after is None


@pytest.mark.parametrize(("status", "reply"), list(product(OrderStatus, saga.REPLIES)))
def test_a_reply_decides_only_an_undecided_order(status, reply):
    after = saga.apply_reply(Saga(status, "RESERVED", "AUTHORIZED"), reply)
    if status is not CREATED:
        assert after.status is status


def test_the_transitions_are_exactly_those_of_the_contract():
    assert {(before, after) for before, then in saga.TRANSITIONS.items() for after in then} == {
        (CREATED, CONFIRMED),
        (CREATED, CANCELLED),
        (CONFIRMED, SHIPPED),
        (CONFIRMED, CANCELLED),
        (SHIPPED, DELIVERED),
    }


def test_the_replies_are_the_events_of_inventory_and_payments():
    replies = [
        event
        for module in (stock_events, payment_events)
        for event in vars(module).values()
        if "orders" in getattr(event, "consumers", ())
    ]
    assert set(replies) == set(saga.REPLIES)


STATES = [
    saga.Saga(status, stock, payment)
    for status in OrderStatus
    for stock in ("PENDING", "RESERVED", "FAILED", "COMMITTED", "RELEASED", "RETURNED")
    for payment in ("PENDING", "AUTHORIZED", "FAILED", "CAPTURED", "VOIDED", "PARTIALLY_REFUNDED", "REFUNDED")
]


@pytest.mark.parametrize("state", STATES, ids=lambda state: f"{state.status}-{state.stock}-{state.payment}")
def test_only_unsettled_orders_have_awaited_events(state):
    """A test in tests/service/orders compares the SQL of the list of sagas with is_unsettled."""
    assert bool(saga.awaits(state)) == saga.is_unsettled(state)
    for words in saga.awaits(state):
        assert words.split()[0] in {"inventory", "payments", "orders"}


@pytest.mark.parametrize(
    ("state", "awaited"),
    [
        (saga.Saga(), ["inventory has not replied to order.created", "payments has not replied to order.created"]),
        (saga.Saga(CREATED, "RESERVED"), ["payments has not replied to order.created"]),
        (saga.Saga(CREATED, payment="AUTHORIZED"), ["inventory has not replied to order.created"]),
        (saga.Saga(CREATED, "RESERVED", "AUTHORIZED"), ["orders has not decided, though both have replied"]),
        (saga.Saga(CONFIRMED, "COMMITTED", "AUTHORIZED"), ["payments has not captured the payment (order.confirmed)"]),
        (saga.Saga(SHIPPED, "RESERVED", "CAPTURED"), ["inventory has not committed the stock (order.confirmed)"]),
        (saga.Saga(CANCELLED, "RESERVED", "FAILED"), ["inventory has not released the stock (order.cancelled)"]),
        (saga.Saga(CANCELLED, "COMMITTED", "REFUNDED"), ["inventory has not taken the stock back (order.cancelled)"]),
        (saga.Saga(CANCELLED, "PENDING", "AUTHORIZED"), ["payments has not voided the payment (order.cancelled)"]),
        (saga.Saga(CANCELLED, "FAILED", "CAPTURED"), ["payments has not refunded the payment (order.cancelled)"]),
        (saga.Saga(CANCELLED), []),
        (saga.Saga(DELIVERED, "COMMITTED", "CAPTURED"), []),
    ],
)
def test_an_awaited_event_is_described_with_its_service(state, awaited):
    assert saga.awaits(state) == awaited
