"""Patches that put bugs into the real rules: each function returns a factory of context managers."""

import contextlib
from dataclasses import replace
from unittest import mock

from contracts.orders import CancelReason, OrderCreated, OrderStatus
from inventory import rules as stock
from orders import saga
from orders import use_cases as order_use_cases
from payments import use_cases as payment_use_cases
from qa.model.scenario import Environment

_DECIDE, APPLY_REPLY, _APPLY, _DECIDE_STOCK = saga._decide, saga.apply_reply, order_use_cases._apply, stock.decide
_STEP = payment_use_cases._step


def without_row(rules, *gone):
    """Remove these rows from a table of steps."""
    return lambda: mock.patch.object(rules, "STEPS", {key: rules.STEPS[key] for key in rules.STEPS if key not in gone})


def with_row(rules, key, step):
    """Add this row to a table of steps, or replace the existing one."""
    return lambda: mock.patch.dict(rules.STEPS, {key: step})


def with_replacement(where, name, what):
    """Replace a function or value."""
    return lambda: mock.patch.object(where, name, what)


def with_command(which, possible_in, becomes, reason=None):
    """Permit a command in these statuses, and add its transitions."""

    @contextlib.contextmanager
    def patch():
        transitions = {status: saga.TRANSITIONS[status] | {becomes} for status in possible_in}
        commands = {which: (frozenset(possible_in), becomes, reason)}
        with mock.patch.dict(saga.COMMANDS, commands), mock.patch.dict(saga.TRANSITIONS, transitions):
            yield

    return patch


def without_lock(lock):
    """Return a scenario in which this lock is not taken."""
    return lambda scenario: replace(scenario, environment=Environment(locks=Environment().locks - {lock}))


def without_guarantee(scenario, **guarantee):
    """Return a scenario whose environment lacks a guarantee."""
    return replace(scenario, environment=Environment(**guarantee))


def confirm_on(sufficient):
    """Confirm also orders that satisfy `sufficient`."""

    def decide(it):
        if it.status is OrderStatus.CREATED and sufficient(it):
            return saga._change_status(it, OrderStatus.CONFIRMED, None)
        return _DECIDE(it)

    return with_replacement(saga, "_decide", decide)


def ignore_when(ignored):
    """Do not decide orders that satisfy `ignored`."""

    def decide(it):
        return it if ignored(it) else _DECIDE(it)

    return with_replacement(saga, "_decide", decide)


def confirm_after_cancellation():
    """Confirm also cancelled orders."""

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
    """Decide correctly, but with the other reason."""
    decided = _DECIDE(it)
    swapped = {
        CancelReason.OUT_OF_STOCK: CancelReason.PAYMENT_FAILED,
        CancelReason.PAYMENT_FAILED: CancelReason.OUT_OF_STOCK,
    }
    return replace(decided, cancel_reason=swapped.get(decided.cancel_reason, decided.cancel_reason))


def apply_stale_replies(it, reply, *, returned=False):
    """Apply every reply, also late ones."""
    part, status = saga.REPLIES[reply]
    return saga._decide(replace(it, **{part: "RETURNED" if returned else status}))


def publish_times(how_often):
    """Publish each status event `how_often(event)` times."""

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

    return with_replacement(order_use_cases, "_apply", apply)


def forget_refunds():
    """Record the outcome of a refund without looking whether it is recorded already."""

    def step(row, answer, known):
        return _STEP(row, answer, dict.fromkeys(known))

    return with_replacement(payment_use_cases, "_step", step)


def reserve_available_lines(status, event, lines, levels):
    """Reserve the lines with sufficient stock."""
    if isinstance(event, OrderCreated):
        short = {shortage.product_id for shortage in stock.shortages(lines, levels)}
        lines = {product: units for product, units in lines.items() if product not in short}
    return _DECIDE_STOCK(status, event, lines, levels)
