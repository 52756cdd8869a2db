"""One transaction of each service, decided by its real code: what it writes and publishes, given what it has read.

This module decides nothing. Orders: saga.apply_reply, saga.apply_command, use_cases._apply and ._status_event.
Inventory: rules.merge, .step_for, .decide and .adjust. Payments: rules.step_for and .STORED, use_cases._step, ._row,
._stored and ._announce, and Payment.state.
"""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import NamedTuple
from uuid import UUID

from contracts.errors import ServiceError
from contracts.events import EVENTS
from inventory import rules as stock_rules
from orders import saga as saga_rules
from orders import use_cases as order_use_cases
from payments import rules as payment_rules
from payments import use_cases as payment_use_cases
from payments.attempts import Answer
from payments.models import Payment
from payments.provider import Approved, Call, Captured, Declined, Operation, Refunded, Voided
from qa.model import vocabulary as words
from qa.model.scenario import APPROVED, DECLINED

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
    "refunded": Refunded("refund_1"),
}
RESULTS = {Operation.CAPTURE: "captured", Operation.VOID: "voided", Operation.REFUND: "refunded"}
# What the provider has done, what must not have been done before, and what must.
CALLS = {
    APPROVED: (words.AUTHORIZED, words.DECLINED | words.VOIDED, 0),
    DECLINED: (words.DECLINED, words.AUTHORIZED | words.VOIDED, 0),
    "captured": (words.CAPTURED, words.VOIDED, words.AUTHORIZED),
    "voided": (words.VOIDED, words.CAPTURED, 0),
    "refunded": (words.REFUNDED, words.VOIDED, words.CAPTURED),
}
"""A provider that remembers its operations; strict and idempotent, as a real one is."""


class ProviderRefuses(Exception):
    """The call contradicts an earlier one."""


def ask_provider(money, result):
    """Return what the provider has done after the call with this result. Raises ProviderRefuses."""
    does, unless, after = CALLS[result]
    if money & does:
        return money  # a repeated call
    if money & unless or money & after != after:
        raise ProviderRefuses
    return money | does


# Orders. A transaction writes the changed columns, as the ORM does.


def apply_reply(number, saga, message):
    """Orders handles a reply."""
    event, returned = words.MESSAGES[message]
    return _apply(number, saga, saga_rules.apply_reply(saga, EVENTS[event], returned=returned))


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
    before = payment_use_cases._new_row(received, step) if row is None else payment_use_cases._row(row)
    return Outcome(_columns(before | payment_use_cases._stored(step.becomes)))


def record_outcome(number, payment, result, money):
    """Payments records the provider's outcome, in time or late. A repeated request has the same outcome."""
    row, published = _row(number, payment), []
    call = Call(Operation.REFUND, "refund", "authorise", words.TOTAL - row.refund_requested_amount, "TRY", "pm_ok")
    step, after = payment_use_cases._step(row, Answer(call, OUTCOMES[result], NOW, timedelta()), {})
    if step is None:
        return None
    payment_use_cases._announce(step, row, after, lambda event, _: published.append(event), row.cause)
    return Outcome(_columns(after), tuple(words.index_of(event) for event in published), money)


@cache
def payment_state(payment):
    """Return the state of a payment's row. An exploration clears the cache: a mutant may have changed the rules."""
    return None if payment is None else _row(0, payment).state


def operation_of(payment):
    """Return what payments asks the provider about a payment, None for nothing."""
    return payment_rules.OPERATIONS.get(payment_state(payment))


def _columns(row):
    return str(row["status"]), row["capture_requested"], row["cancel_requested"]


def _row(number, payment):
    status, capture_requested, cancel_requested = payment
    authorised = status not in {"PENDING", "FAILED", "CANCELLED_BEFORE"}
    refunded = words.TOTAL if status == "REFUNDED" else Decimal(0)
    return Payment(
        id=PAYMENT,
        order_id=words.ORDERS[number],
        user_id=words.USER,
        amount=words.TOTAL,
        currency="TRY",
        status=status,
        capture_requested=capture_requested,
        cancel_requested=cancel_requested,
        refund_requested_amount=refunded,
        refunded_amount=refunded,
        transaction_reference="auth_1" if authorised else None,
        failure_reason=None,
        cause_message_id=MESSAGE_ID,
        cause_request_id="request",
        cause_traceparent="trace",
    )
