"""The state machine of an order, by itself and together with the real rules of inventory and payments.

The second half delivers the events of one order in every order there is, each any number of times and without an inbox
to protect anybody, with the user and the clock interfering at every point, and asserts the contract after each step.
"""

from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import product

import pytest

from contracts import inventory as stock_events
from contracts import orders as order_events
from contracts import payments as payment_events
from contracts.orders import CancelReason, OrderStatus
from extensions.ids import new_id
from inventory import rules as stock_rules
from orders import saga
from orders.saga import Command, Saga
from payments import rules as payment_rules
from payments.provider import Approved, Declined

CREATED, CONFIRMED, SHIPPED, DELIVERED, CANCELLED = OrderStatus


@pytest.mark.parametrize(
    ("before", "answer", "after"),
    [
        (Saga(), "inventory.stock_reserved", Saga(stock="RESERVED")),
        (Saga(), "payment.authorized", Saga(payment="AUTHORIZED")),
        (Saga(payment="AUTHORIZED"), "inventory.stock_reserved", Saga(CONFIRMED, "RESERVED", "AUTHORIZED")),
        (Saga(stock="RESERVED"), "payment.authorized", Saga(CONFIRMED, "RESERVED", "AUTHORIZED")),
        (Saga(), "inventory.stock_failed", Saga(CANCELLED, "FAILED", "PENDING", CancelReason.OUT_OF_STOCK)),
        (Saga(), "payment.failed", Saga(CANCELLED, "PENDING", "FAILED", CancelReason.PAYMENT_FAILED)),
        (
            Saga(payment="AUTHORIZED"),
            "inventory.stock_failed",
            Saga(CANCELLED, "FAILED", "AUTHORIZED", CancelReason.OUT_OF_STOCK),
        ),
        (
            Saga(stock="RESERVED"),
            "payment.failed",
            Saga(CANCELLED, "RESERVED", "FAILED", CancelReason.PAYMENT_FAILED),
        ),
    ],
)
def test_an_answer_settles_what_it_settles(before, answer, after):
    assert saga.hear(before, answer) == after
    assert saga.hear(after, answer) == after  # and once more changes nothing


def test_late_answers_only_move_forward():
    released = saga.hear(Saga(CANCELLED, cancel_reason=CancelReason.USER), "inventory.stock_released")
    assert saga.hear(released, "inventory.stock_reserved") == released
    refunded = saga.hear(Saga(CANCELLED, cancel_reason=CancelReason.USER), "payment.refunded")
    assert saga.hear(saga.hear(refunded, "payment.captured"), "payment.authorized") == refunded


def test_a_release_of_committed_stock_is_a_return():
    committed = Saga(CANCELLED, "COMMITTED", "CAPTURED", CancelReason.USER)
    assert saga.hear(committed, "inventory.stock_released", returned=True).stock == "RETURNED"


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
    after = saga.obey(Saga(status), command)
    if command in possible[status]:
        assert (after.status, after.cancel_reason) == leads_to[command]
    else:
        assert after is None


@pytest.mark.parametrize(("status", "answer"), list(product(OrderStatus, saga.ANSWERS)))
def test_only_an_undecided_order_is_decided_by_an_answer(status, answer):
    after = saga.hear(Saga(status, "RESERVED", "AUTHORIZED"), answer)
    if status is not CREATED:
        assert after.status is status


def test_every_transition_of_the_contract_and_no_other():
    assert {(before, after) for before, then in saga.TRANSITIONS.items() for after in then} == {
        (CREATED, CONFIRMED),
        (CREATED, CANCELLED),
        (CONFIRMED, SHIPPED),
        (CONFIRMED, CANCELLED),
        (SHIPPED, DELIVERED),
    }


# Every order of arrival

PRODUCT = new_id()
LINES = {PRODUCT: 2}
ORDER, USER, PAYMENT = new_id(), new_id(), new_id()
ON_HAND = 5

ORDER_EVENTS = {
    "order.created": order_events.OrderCreated(
        order_id=ORDER, user_id=USER, total_amount=Decimal("20.00"), currency="TRY", items=()
    ),
    "order.confirmed": order_events.OrderConfirmed(
        order_id=ORDER, user_id=USER, total_amount=Decimal("20.00"), currency="TRY"
    ),
    "order.cancelled": order_events.OrderCancelled(order_id=ORDER, user_id=USER, reason=CancelReason.USER),
}


@dataclass(frozen=True)
class World:
    """One order in all three services, what was published, and who has heard it at least once."""

    order: Saga = Saga()
    reservation: stock_rules.Status | None = None
    stock: stock_rules.Balance = stock_rules.Balance(ON_HAND, 0)
    payment: payment_rules.State | None = None
    published: frozenset = frozenset({("order.created", False)})
    heard: frozenset = frozenset()
    decisions: tuple = ()

    def said(self, name, returned=False):
        return replace(self, published=self.published | {(name, returned)})


def deliveries(world):
    """Every delivery that is possible now, again and again."""
    for message in world.published:
        if message[0].startswith("order."):
            yield from ((message, "inventory"), (message, "payments"))
        else:
            yield message, "orders"


def deliver(world, message, service):
    handle = {"inventory": to_inventory, "payments": to_payments, "orders": to_orders}[service]
    after = handle(world, *message)
    return None if after is None else replace(after, heard=after.heard | {(message, service)})


def to_inventory(world, name, _returned):
    try:
        decision = stock_rules.decide(world.reservation, ORDER_EVENTS[name], LINES, {PRODUCT: world.stock})
    except stock_rules.ReservationMissing:
        return None  # not handled: it is retried, so as if it had not been delivered yet
    if decision is None:
        return world
    stock = world.stock.plus(decision.changes[PRODUCT]) if decision.changes else world.stock
    world = replace(world, reservation=decision.status, stock=stock)
    if decision.event is None:
        return world
    return world.said(decision.event.event_type, getattr(decision.event, "returned", False))


def to_payments(world, name, _returned):
    return pay(world, type(ORDER_EVENTS[name]))


def pay(world, trigger):
    try:
        step = payment_rules.step_for(world.payment, trigger)
    except payment_rules.PaymentMissing:
        return None
    if step is None:
        return world
    world = replace(world, payment=step.becomes)
    return world if step.publishes is None else world.said(step.publishes.event_type)


def to_orders(world, name, returned):
    return announce(world, saga.hear(world.order, name, returned=returned))


def announce(world, after):
    before, world = world.order, replace(world, order=after)
    if after.status is before.status:
        return world
    name = f"order.{after.status.lower()}"
    if after.status in {CONFIRMED, CANCELLED}:
        return replace(world.said(name), decisions=(*world.decisions, name))
    return world


def steps(world, answer, commands):
    """Every world that can come next."""
    for message, service in deliveries(world):
        after = deliver(world, message, service)
        if after is not None:
            yield after
    if world.payment in {payment_rules.State.PENDING, payment_rules.State.CANCELLING}:
        yield pay(world, answer)
    for command in commands:
        after = saga.obey(world.order, command)
        if after is not None:
            yield announce(world, after)


def is_at_rest(world):
    everything = set(deliveries(world))
    return everything <= world.heard and world.payment not in {
        payment_rules.State.PENDING,
        payment_rules.State.CANCELLING,
    }


def assert_always(before, after):
    assert 0 <= after.stock.reserved <= after.stock.on_hand
    assert after.decisions in ((), ("order.confirmed",), ("order.cancelled",), ("order.confirmed", "order.cancelled"))
    if before.order.status in {CANCELLED, DELIVERED}:
        assert after.order.status is before.order.status
    for part in ("stock", "payment"):
        assert saga.PROGRESS[getattr(after.order, part)] >= saga.PROGRESS[getattr(before.order, part)]


def assert_at_rest(world):
    assert world.order.status is not CREATED
    if world.order.status is CANCELLED:
        assert world.stock == stock_rules.Balance(ON_HAND if LINES else 0, 0)
        assert world.reservation in {"FAILED", "RELEASED", "RETURNED", "CANCELLED_BEFORE"}
        assert world.payment in {"FAILED", "VOIDED", "REFUNDED", "CANCELLED_BEFORE"}
    else:
        assert world.stock == stock_rules.Balance(ON_HAND - LINES[PRODUCT], 0)
        assert (world.reservation, world.payment) == ("COMMITTED", "CAPTURED")
    assert not saga.is_stuck(world.order)


def explore(start, answer, commands):
    """Visit every reachable world; returns them."""
    seen, waiting = {start}, [start]
    while waiting:
        world = waiting.pop()
        if is_at_rest(world):
            assert_at_rest(world)
        for after in steps(world, answer, commands):
            assert_always(world, after)
            if after not in seen:
                seen.add(after)
                waiting.append(after)
    return seen


@pytest.mark.parametrize("answer", [Approved, Declined])
@pytest.mark.parametrize("enough", [True, False])
@pytest.mark.parametrize(
    "commands",
    [(), (Command.CANCEL_BY_USER,), (Command.EXPIRE,), (Command.CANCEL_BY_USER, Command.SHIP, Command.DELIVER)],
    ids=["undisturbed", "user cancels", "deadline", "user cancels, shop ships"],
)
def test_every_order_of_arrival(answer, enough, commands, monkeypatch):
    if not enough:
        monkeypatch.setitem(LINES, PRODUCT, ON_HAND + 1)
    worlds = explore(World(), answer, commands)
    ends = {world.order.status for world in worlds if is_at_rest(world)}
    good = answer is Approved and enough
    if Command.SHIP in commands and good:
        assert ends == {CANCELLED, CONFIRMED, SHIPPED, DELIVERED}
    elif commands and good:
        assert ends == {CANCELLED, CONFIRMED}
    else:
        assert ends == ({CONFIRMED} if good else {CANCELLED})


def test_the_answers_are_the_events_of_inventory_and_payments():
    answers = [
        event.event_type
        for module in (stock_events, payment_events)
        for event in vars(module).values()
        if getattr(event, "consumers", ()) == ("orders",)
    ]
    assert sorted(answers) == sorted(saga.ANSWERS)


STATES = [
    saga.Saga(status, stock, payment)
    for status in OrderStatus
    for stock in ("PENDING", "RESERVED", "FAILED", "COMMITTED", "RELEASED", "RETURNED")
    for payment in ("PENDING", "AUTHORIZED", "FAILED", "CAPTURED", "VOIDED", "REFUNDED")
]


@pytest.mark.parametrize("state", STATES, ids=lambda state: f"{state.status}-{state.stock}-{state.payment}")
def test_what_is_awaited_is_said_of_every_unsettled_order_and_of_no_other(state):
    """The SQL behind the list of sagas is held to is_stuck in tests/service/orders."""
    assert bool(saga.awaits(state)) == saga.is_stuck(state)
    for words in saga.awaits(state):
        assert words.split()[0] in {"inventory", "payments", "orders"}


@pytest.mark.parametrize(
    ("state", "awaited"),
    [
        (saga.Saga(), ["inventory has not answered order.created", "payments has not answered order.created"]),
        (saga.Saga(CREATED, "RESERVED"), ["payments has not answered order.created"]),
        (saga.Saga(CREATED, payment="AUTHORIZED"), ["inventory has not answered order.created"]),
        (saga.Saga(CREATED, "RESERVED", "AUTHORIZED"), ["orders has not decided, though both have answered"]),
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
def test_what_is_awaited_names_who_and_what(state, awaited):
    assert saga.awaits(state) == awaited
