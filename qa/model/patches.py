"""How a bug is put into the real rules, and taken out again: each function returns a context manager's maker."""

import contextlib
from dataclasses import replace
from unittest import mock

from contracts.orders import CancelReason, OrderCreated, OrderStatus
from inventory import rules as stock
from orders import saga
from orders import use_cases as order_use_cases
from qa.model.scenario import Environment

_DECIDE, HEAR, _APPLY, _DECIDE_STOCK = saga._decide, saga.apply_reply, order_use_cases._apply, stock.decide


def no(rules, *gone):
    """Without these rows of a table of steps."""
    return lambda: mock.patch.object(rules, "STEPS", {key: rules.STEPS[key] for key in rules.STEPS if key not in gone})


def also(rules, key, step):
    """With this row of a table of steps, new or instead of the one that stood there."""
    return lambda: mock.patch.dict(rules.STEPS, {key: step})


def instead(where, name, what):
    """With another function or value under a name."""
    return lambda: mock.patch.object(where, name, what)


def command(which, possible_in, becomes, reason=None):
    """With a command possible where it is not, and with the transitions for it."""

    @contextlib.contextmanager
    def patch():
        transitions = {status: saga.TRANSITIONS[status] | {becomes} for status in possible_in}
        commands = {which: (frozenset(possible_in), becomes, reason)}
        with mock.patch.dict(saga.COMMANDS, commands), mock.patch.dict(saga.TRANSITIONS, transitions):
            yield

    return patch


def without(lock):
    """A scenario in which a lock is not taken."""
    return lambda scenario: replace(scenario, environment=Environment(locks=Environment().locks - {lock}))


def lacking(scenario, **guarantee):
    """A scenario whose environment does not guarantee something."""
    return replace(scenario, environment=Environment(**guarantee))


def decide_on(sufficient):
    """Confirm also what satisfies `sufficient`."""

    def decide(it):
        if it.status is OrderStatus.CREATED and sufficient(it):
            return saga._change_status(it, OrderStatus.CONFIRMED, None)
        return _DECIDE(it)

    return instead(saga, "_decide", decide)


def decide_unless(ignored):
    """Decide nothing about what satisfies `ignored`."""

    def decide(it):
        return it if ignored(it) else _DECIDE(it)

    return instead(saga, "_decide", decide)


def decide_anew():
    """Decide also what was cancelled already."""

    @contextlib.contextmanager
    def patch():
        def decide(it):
            if it.status is OrderStatus.CANCELLED and (it.stock, it.payment) == ("RESERVED", "AUTHORIZED"):
                return saga._change_status(it, OrderStatus.CONFIRMED, None)
            return _DECIDE(it)

        transitions = {OrderStatus.CANCELLED: frozenset({OrderStatus.CONFIRMED})}
        with mock.patch.dict(saga.TRANSITIONS, transitions), mock.patch.object(saga, "_decide", decide):
            yield

    return patch


def swap_reasons(it):
    """Decide right, and say the other reason."""
    decided = _DECIDE(it)
    swapped = {
        CancelReason.OUT_OF_STOCK: CancelReason.PAYMENT_FAILED,
        CancelReason.PAYMENT_FAILED: CancelReason.OUT_OF_STOCK,
    }
    return replace(decided, cancel_reason=swapped.get(decided.cancel_reason, decided.cancel_reason))


def hear_the_latest(it, answer, *, returned=False):
    """Believe every answer, however late it is."""
    part, status = saga.REPLIES[answer]
    return saga._decide(replace(it, **{part: "RETURNED" if returned else status}))


def announce(how_often):
    """Publish each announcement so many times."""

    def apply(order, after, entries, publish):
        events = []

        def note(event):
            events.append(event)
            return order.id

        changed = _APPLY(order, after, entries, note)
        for event in events:
            for _ in range(how_often(event)):
                publish(event)
        return changed

    return instead(order_use_cases, "_apply", apply)


def reserve_what_there_is(status, event, lines, levels):
    """Reserve the lines of which there is enough."""
    if isinstance(event, OrderCreated):
        short = {shortage.product_id for shortage in stock.shortages(lines, levels)}
        lines = {product: units for product, units in lines.items() if product not in short}
    return _DECIDE_STOCK(status, event, lines, levels)
