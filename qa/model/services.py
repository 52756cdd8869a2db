"""One transaction of each service, decided by its real code: what it writes and publishes, given what it has read.

This module decides nothing. Orders: saga.apply_reply, saga.apply_command, use_cases._apply and ._status_event.
Inventory: rules.merge, .step_for, .decide and .adjust. Payments: rules.step_for and .STORED, use_cases._step, ._row,
._stored and ._announce, refunds.request_refund and .sums_after, and Payment.state.
"""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from types import SimpleNamespace
from typing import NamedTuple
from unittest import mock
from uuid import UUID

from contracts.base import OPERATOR
from contracts.errors import ServiceError
from contracts.events import EVENTS
from contracts.payments import RefundPayment
from inventory import rules as stock_rules
from orders import saga as saga_rules
from orders import use_cases as order_use_cases
from payments import refunds as refund_use_cases
from payments import rules as payment_rules
from payments import use_cases as payment_use_cases
from payments.attempts import Answer
from payments.models import Payment
from payments.provider import Approved, Call, Captured, Declined, Operation, Refunded, Voided
from qa.model import vocabulary as words
from qa.model.scenario import ALL_LEFT, APPROVED, DECLINED

NO_REFUNDS = {"refund_requested_amount": Decimal(0), "refunded_amount": Decimal(0)}
PAYMENT, MESSAGE_ID = UUID(int=0xBEEF), UUID(int=0xFEED)
NOW = datetime(2026, 1, 31, tzinfo=UTC)
FIELDS = (("status", "status"), ("stock", "stock_status"), ("payment", "payment_status"), ("cancel_reason",) * 2)


class Outcome(NamedTuple):
    """What a transaction writes, besides its inbox row, and the messages that it puts into the outbox."""

    write: tuple
    publishes: tuple[int, ...] = ()
    money: int = 0


OUTCOMES = {
    APPROVED: Approved("auth_1"),
    DECLINED: Declined("over the limit"),
    "captured": Captured("capture_1"),
    "voided": Voided("void_1"),
}
REFUNDED = [f"refunded {number}" for number in range(words.REST + 1)]
"""The outcomes of refunds, by their numbers."""
OUTCOMES |= {result: Refunded("refund_1") for result in REFUNDED}
RESULTS = {Operation.CAPTURE: "captured", Operation.VOID: "voided"}
# What the provider has done, what must not have been done before, and what must.
CALLS = {
    APPROVED: (words.AUTHORIZED, words.DECLINED | words.VOIDED, 0),
    DECLINED: (words.DECLINED, words.AUTHORIZED | words.VOIDED, 0),
    "captured": (words.CAPTURED, words.VOIDED, words.AUTHORIZED),
    "voided": (words.VOIDED, words.CAPTURED, 0),
}
"""A provider that remembers its operations; strict and idempotent, as a real one is."""


class ProviderRefuses(Exception):
    """The call contradicts an earlier one."""


def results_of(money):
    """Return the results of what the provider has done: they may come late, and again."""
    found = {result for result, (done, _, _) in CALLS.items() if money & done}
    return found | {result for number, result in enumerate(REFUNDED) if words.given_back(money, number)}


def ask_provider(payment, money, result):
    """Return what the provider has done after the call with this result. Raises ProviderRefuses."""
    if result in REFUNDED:
        number = REFUNDED.index(result)
        return _ask_for_refund(money, number, _units(payment, money, number))
    does, unless, after = CALLS[result]
    if money & does:
        return money  # a repeated call
    if money & unless or money & after != after:
        raise ProviderRefuses
    return money | does


def _ask_for_refund(money, number, units):
    if words.given_back(money, number):
        return money  # a repeated call: the key is derived from the refund
    if money & words.VOIDED or not money & words.CAPTURED or words.all_given_back(money) + units > words.UNITS:
        raise ProviderRefuses
    return money | words.giving_back(number, units)


def _units(payment, money, number):
    """Return how many units are given back by this refund: what was asked for, or all that is left."""
    asked = [refund.units for refund in payment.refunds if refund.number == number]
    return words.given_back(money, number) or (asked[0] if asked else words.UNITS - payment.requested)


# Orders. A transaction writes the changed columns, as the ORM does.


def apply_reply(number, saga, message):
    """Orders handles a reply."""
    event, variant = words.MESSAGES[message]
    return _apply(number, saga, saga_rules.apply_reply(saga, EVENTS[event], returned=variant is True))


def apply_command(number, saga, command):
    """A user, an admin or the deadline issues a command."""
    after = saga_rules.apply_command(saga, command)
    return None if after is None else _apply(number, saga, after)


def _apply(number, saga, after):
    row, published = words.order_row(number, saga), []

    def publish(event, cause=None):
        published.append(event)
        return MESSAGE_ID

    if not order_use_cases._apply(row, after, [], publish):
        return None
    written = tuple((field, getattr(row, column)) for field, column in FIELDS)
    changed = tuple((field, value) for field, value in written if value != getattr(saga, field))
    # No deciding service consumes order.shipped and order.delivered.
    return Outcome(changed, tuple(words.index_of(event) for event in published if words.is_consumed(event)))


# Inventory. A transaction writes the reservation's status and lines, and the stock as computed from what it read.


def handle_in_inventory(number, reservation, message, lines, stock):
    """Inventory handles an event of an order. Raises ReservationMissing."""
    event = words.received(number, message, lines).event
    status, held = reservation or (None, ())
    if not stock_rules.step_for(status, type(event)):
        return None
    if message == words.CREATED:
        requested = stock_rules.merge(event.items)
    else:
        requested = {words.PRODUCTS[product]: quantity for product, quantity in held}
    read = {product: stock[words.PRODUCT_OF[product]] for product in requested}
    read = {product: stock_rules.Balance(*balance) for product, balance in read.items() if balance is not None}
    decision = stock_rules.decide(status, event, requested, read)
    if decision is None:
        return None
    if decision.status == stock_rules.Status.RESERVED:
        held = tuple(sorted((words.PRODUCT_OF[key], change.reserved) for key, change in decision.changes.items()))
    after = {words.PRODUCT_OF[key]: read[key].plus(change) for key, change in decision.changes.items()}
    balances = tuple(sorted((product, (balance.on_hand, balance.reserved)) for product, balance in after.items()))
    publishes = (words.index_of(decision.event),) if decision.event else ()
    return Outcome(((decision.status, held), balances), publishes)


def adjust(balance, delta):
    """A person adjusts the stock of a product; returns its new balance, or None if that is refused."""
    read = stock_rules.Balance(*balance)
    try:
        after = read.plus(stock_rules.adjust(read, delta))
    except ServiceError:
        return None
    return after.on_hand, after.reserved


# Payments. A transaction writes the whole row.


def handle_in_payments(number, payment, message):
    """Payments handles an event of an order: it publishes nothing, and asks nobody. Raises PaymentMissing."""
    received = words.received(number, message, ())
    row = None if payment is None else _row(number, payment)
    step = payment_rules.step_for(row and row.state, type(received.event))
    if step is None:
        return None
    if row is None:
        before, refunds = payment_use_cases._new_row(received, step) | NO_REFUNDS, ()
    else:
        before, refunds = payment_use_cases._row(row), payment.refunds
    return Outcome(_columns(before | payment_use_cases._stored(step.becomes), refunds))


def request_refund(number, payment, which, units, money):
    """An administrator asks for a refund of so many units, or of all that is left. None if it is refused."""
    row, stored = _row(number, payment), []
    request = RefundPayment(reason="a complaint", **({} if units == ALL_LEFT else {"amount": units * words.UNIT}))
    session = SimpleNamespace(add=stored.append, flush=lambda: None)
    with (
        mock.patch.object(refund_use_cases.queries, "lock_payment", return_value=row),
        mock.patch.object(refund_use_cases.queries, "refund_view"),
        mock.patch.object(refund_use_cases.work_items, "schedule"),
    ):
        try:
            refund_use_cases.request_refund(session, PAYMENT, request, OPERATOR, row.cause)
        except ServiceError:
            return None
    added = tuple(words.Refund(which, int(refund.amount / words.UNIT), is_made=False) for refund in stored)
    return Outcome(_columns(payment_use_cases._row(row), payment.refunds + added), money=money)


def record_outcome(number, payment, result, money):
    """Payments records the provider's outcome, in time or late. A repeated request has the same outcome."""
    row, published = _row(number, payment), []
    which = REFUNDED.index(result) if result in REFUNDED else None
    units = 0 if which is None else _units(payment, money, which)
    known = {refund.number: _stored_refund(row, refund) for refund in payment.refunds}
    refund_id = MESSAGE_ID if which in known and which != words.REST else None
    call = Call(Operation.REFUND, which, "authorise", units * words.UNIT, "TRY", "pm_ok", refund_id=refund_id)
    step, after = payment_use_cases._step(row, Answer(call, OUTCOMES[result], NOW, timedelta()), known)
    if step is None:
        return None
    payment_use_cases._announce(step, row, after, lambda event, _: published.append(event), row.cause)
    refunds = payment.refunds if which is None else _with_made(payment.refunds, which, units)
    messages = tuple(words.index_of(event, which) for event in published)
    return Outcome(_columns(after, refunds), messages, money)


def _stored_refund(row, refund):
    return SimpleNamespace(completed_at=NOW if refund.is_made else None, cause=row.cause)


def _with_made(refunds, which, units):
    """Return the rows of refunds after one was made, as RECORD_REFUNDS writes them."""
    made = words.Refund(which, units, is_made=True)
    if which in {refund.number for refund in refunds}:
        return tuple(made if refund.number == which else refund for refund in refunds)
    return (*refunds, made)


@cache
def payment_state(payment):
    """Return the state of a payment's row. An exploration clears the cache: a mutant may have changed the rules."""
    return None if payment is None else _row(0, payment).state


def operation_of(payment):
    """Return what payments asks the provider about a payment, None for nothing."""
    return payment_rules.OPERATIONS.get(payment_state(payment))


def result_of(payment):
    """Return the result of the call that the provider is asked now, None without one. Authorisations have several.

    Of the refunds, the oldest that is not made comes first, then all that is left.
    """
    operation = operation_of(payment)
    if operation is not Operation.REFUND:
        return RESULTS.get(operation)
    waiting = [refund.number for refund in payment.refunds if not refund.is_made]
    return REFUNDED[waiting[0] if waiting else words.REST]


def rank_of(payment):
    """Return how far a payment has come."""
    return words.payment_rank(payment_state(payment), payment)


def _columns(row, refunds):
    return words.PaymentRow(
        str(row["status"]),
        row["capture_requested"],
        row["cancel_requested"],
        int(row["refund_requested_amount"] / words.UNIT),
        int(row["refunded_amount"] / words.UNIT),
        refunds,
    )


def _row(number, payment):
    authorised = payment.status not in {"PENDING", "FAILED", "CANCELLED_BEFORE"}
    return Payment(
        id=PAYMENT,
        order_id=words.ORDERS[number],
        user_id=words.USER,
        amount=words.TOTAL,
        currency="TRY",
        status=payment.status,
        capture_requested=payment.capture_requested,
        cancel_requested=payment.cancel_requested,
        refund_requested_amount=payment.requested * words.UNIT,
        refunded_amount=payment.refunded * words.UNIT,
        transaction_reference="auth_1" if authorised else None,
        failure_reason=None,
        cause_message_id=MESSAGE_ID,
        cause_request_id="request",
        cause_traceparent="trace",
    )
