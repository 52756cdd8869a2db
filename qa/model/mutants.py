"""Bugs that somebody could put in one day: each is put in, and the explorer must find it.

A mutant changes the real rules, by patching their data or functions, or takes away something that the model's
environment guarantees because a query or an extension guarantees it. Its scenario is a small world in which it shows.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from contracts import inventory as stock_events
from contracts import payments as payment_events
from contracts.orders import CancelReason, OrderCancelled, OrderConfirmed, OrderCreated, OrderStatus
from inventory import rules as stock
from orders import saga
from payments import rules as payment
from payments.provider import Approved
from qa.model.explorer import explore
from qa.model.patches import (
    HEAR,
    also,
    announce,
    command,
    decide_anew,
    decide_on,
    decide_unless,
    hear_the_latest,
    instead,
    lacking,
    no,
    reserve_what_there_is,
    swap_reasons,
    without,
)
from qa.model.scenario import Scenario
from qa.model.scenarios import ALL, EITHER, EXPIRE, RELAY, SHIP, USER, asks

A, TWO = ((0, 1),), ((0, 1), (1, 1))
PLAIN = Scenario("one order", (asks(*A),), stock=(1,))
MAY_CANCEL = Scenario("one order, the user cancels", (asks(*A, may=(USER,), provider=EITHER),), stock=(1,))
ANYTHING = Scenario("one order, every command", (asks(*A, may=ALL, provider=EITHER),), stock=(1,))
TWO_PRODUCTS = Scenario("one order, one product missing", (asks(*TWO),), stock=(1, 0))
RIVALS = Scenario("two orders, stock for one", (asks(*A), asks(*A)), stock=(1,))
PLENTY = Scenario("two orders, stock for both", (asks(*A), asks(*A)), stock=(2,))
PERSON = Scenario("one order, a person takes the stock away", (asks(*A),), stock=(1,), adjustments=((0, -1),))


@dataclass(frozen=True)
class Mutant:
    """A bug, where it can be seen, and how it is put in."""

    name: str
    scenario: Scenario
    patch: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext

    def hunt(self):
        """Explore the mutated world; returns the report, broken if the bug was found."""
        with self.patch():
            return explore(self.scenario)


_R, _P, _BOOKED = stock.Status, payment.State, payment.Operation
_GONE = stock.Step(_R.COMMITTED, on_hand=-1, reserved=-1, publishes=stock_events.StockCommitted)
_FREE = stock.Step(_R.RELEASED, reserved=-1, publishes=stock_events.StockReleased)
_HELD = stock.Step(_R.RESERVED, reserved=+1, publishes=stock_events.StockReserved)
_TAKEN = payment.Step(_P.CAPTURED, _BOOKED.CAPTURE, payment_events.PaymentCaptured)
_VOID = payment.Step(_P.VOIDED, _BOOKED.VOID, payment_events.PaymentVoided)
_AUTHORISED = payment.Step(_P.AUTHORIZED, publishes=payment_events.PaymentAuthorized)
_CONFIRM, _CANCEL, _CREATE = OrderConfirmed, OrderCancelled, OrderCreated

MUTANTS = (
    # What queries.py and the extensions guarantee
    Mutant("orders does not lock the order's row", without("order")(PLAIN)),
    Mutant("inventory does not lock the order", without("reservation")(MAY_CANCEL)),
    Mutant("payments does not lock the order", without("payment")(MAY_CANCEL)),
    Mutant("inventory does not lock the stock", without("stock")(RIVALS)),
    Mutant("a person's adjustment does not lock the stock", without("stock")(PERSON)),
    Mutant("the outbox is written after the commit", lacking(PLAIN, outbox_in_transaction=False)),
    Mutant(
        "the inbox is written before the transaction", lacking(replace(PLAIN, inbox=True), inbox_in_transaction=False)
    ),
    Mutant("a message is acked before the commit", lacking(PLAIN, acks_after_commit=False)),
    Mutant("the relay deletes before the broker confirms", lacking(RELAY, relay_waits_for_confirm=False)),
    # Inventory
    Mutant("inventory forgets the tombstone", MAY_CANCEL, no(stock, (None, _CANCEL))),
    Mutant(
        "inventory reserves in spite of the tombstone", MAY_CANCEL, also(stock, (_R.CANCELLED_BEFORE, _CREATE), _HELD)
    ),
    Mutant("inventory trusts the inbox: releases again", MAY_CANCEL, also(stock, (_R.RELEASED, _CANCEL), _FREE)),
    Mutant("inventory trusts the inbox: commits again", PLENTY, also(stock, (_R.COMMITTED, _CONFIRM), _GONE)),
    Mutant("inventory commits what was released", MAY_CANCEL, also(stock, (_R.RELEASED, _CONFIRM), _GONE)),
    Mutant("inventory releases what failed", RIVALS, also(stock, (_R.FAILED, _CANCEL), _FREE)),
    Mutant(
        "a commit leaves the units reserved", PLAIN, also(stock, (_R.RESERVED, _CONFIRM), replace(_GONE, reserved=0))
    ),
    Mutant("a commit leaves the units on hand", PLAIN, also(stock, (_R.RESERVED, _CONFIRM), replace(_GONE, on_hand=0))),
    Mutant("a cancellation does not release", MAY_CANCEL, no(stock, (_R.RESERVED, _CANCEL))),
    Mutant("a cancellation does not return what was committed", MAY_CANCEL, no(stock, (_R.COMMITTED, _CANCEL))),
    Mutant(
        "a return puts nothing back on the shelf",
        MAY_CANCEL,
        also(stock, (_R.COMMITTED, _CANCEL), replace(_FREE, becomes=_R.RETURNED, reserved=0)),
    ),
    Mutant(
        "a release is not announced", MAY_CANCEL, also(stock, (_R.RESERVED, _CANCEL), replace(_FREE, publishes=None))
    ),
    Mutant(
        "lines that are there are reserved, the others not",
        TWO_PRODUCTS,
        instead(stock, "decide", reserve_what_there_is),
    ),
    Mutant("no shortage is noticed", RIVALS, instead(stock, "shortages", lambda *_: ())),
    Mutant(
        "what is reserved counts as available",
        RIVALS,
        instead(stock.Balance, "available", property(lambda it: it.on_hand)),
    ),
    Mutant(
        "a person may take what is reserved",
        PERSON,
        instead(stock, "adjust", lambda _, delta: stock.Change(on_hand=delta)),
    ),
    # Payments
    Mutant("payments forgets the tombstone", MAY_CANCEL, no(payment, (None, _CANCEL))),
    Mutant(
        "payments charges in spite of the tombstone",
        MAY_CANCEL,
        also(payment, (_P.CANCELLED_BEFORE, _CREATE), payment.Step(_P.PENDING)),
    ),
    Mutant("a cancellation while the provider is asked is forgotten", MAY_CANCEL, no(payment, (_P.PENDING, _CANCEL))),
    Mutant(
        "a payment cancelled while PENDING is authorised all the same",
        MAY_CANCEL,
        also(payment, (_P.CANCELLING, Approved), _AUTHORISED),
    ),
    Mutant("an authorisation is not voided", MAY_CANCEL, no(payment, (_P.AUTHORIZED, _CANCEL))),
    Mutant("a captured payment is voided, not refunded", MAY_CANCEL, also(payment, (_P.CAPTURED, _CANCEL), _VOID)),
    Mutant("a captured payment is not refunded", MAY_CANCEL, no(payment, (_P.CAPTURED, _CANCEL))),
    Mutant(
        "a refund is entered, but not asked of the provider",
        MAY_CANCEL,
        also(payment, (_P.CAPTURED, _CANCEL), payment.Step(_P.REFUNDED, publishes=payment_events.PaymentRefunded)),
    ),
    Mutant(
        "a void is entered, but not asked of the provider",
        MAY_CANCEL,
        also(payment, (_P.AUTHORIZED, _CANCEL), replace(_VOID, asks=None)),
    ),
    Mutant("payments trusts the inbox: captures again", PLAIN, also(payment, (_P.CAPTURED, _CONFIRM), _TAKEN)),
    Mutant("a late confirmation captures what was voided", MAY_CANCEL, also(payment, (_P.VOIDED, _CONFIRM), _TAKEN)),
    Mutant("the provider's answer is recorded twice", PLAIN, also(payment, (_P.AUTHORIZED, Approved), _AUTHORISED)),
    Mutant(
        "a late answer of the provider revives a void payment",
        MAY_CANCEL,
        also(payment, (_P.VOIDED, Approved), _AUTHORISED),
    ),
    # Orders
    Mutant("the stock alone confirms", PLAIN, decide_on(lambda it: it.stock == "RESERVED")),
    Mutant("the payment alone confirms", PLAIN, decide_on(lambda it: it.payment == "AUTHORIZED")),
    Mutant(
        "both answers do not confirm",
        PLAIN,
        decide_unless(lambda it: (it.stock, it.payment) == ("RESERVED", "AUTHORIZED")),
    ),
    Mutant("missing stock does not cancel", RIVALS, decide_unless(lambda it: it.stock == "FAILED")),
    Mutant("a declined payment does not cancel", MAY_CANCEL, decide_unless(lambda it: it.payment == "FAILED")),
    Mutant("a cancelled order is confirmed by late answers", MAY_CANCEL, decide_anew()),
    Mutant("the reasons of a cancellation are swapped", MAY_CANCEL, instead(saga, "_decide", swap_reasons)),
    Mutant("late answers move the statuses back", PLAIN, instead(saga, "apply_reply", hear_the_latest)),
    Mutant(
        "a returned stock counts as released",
        MAY_CANCEL,
        instead(saga, "apply_reply", lambda it, answer, **_: HEAR(it, answer)),
    ),
    Mutant("each decision is announced twice", PLAIN, announce(lambda _: 2)),
    Mutant(
        "a cancellation is not announced", MAY_CANCEL, announce(lambda event: not isinstance(event, OrderCancelled))
    ),
    Mutant(
        "a shipped order can be cancelled",
        ANYTHING,
        command(USER, {OrderStatus.CREATED, OrderStatus.SHIPPED}, OrderStatus.CANCELLED, CancelReason.USER),
    ),
    Mutant(
        "the deadline cancels a confirmed order",
        ANYTHING,
        command(EXPIRE, {OrderStatus.CREATED, OrderStatus.CONFIRMED}, OrderStatus.CANCELLED, CancelReason.TIMEOUT),
    ),
    Mutant(
        "an order is shipped before its confirmation",
        ANYTHING,
        command(SHIP, {OrderStatus.CREATED}, OrderStatus.SHIPPED),
    ),
    Mutant(
        "a delivered order is cancelled",
        ANYTHING,
        command(USER, {OrderStatus.DELIVERED}, OrderStatus.CANCELLED, CancelReason.USER),
    ),
    Mutant("a deadline gives no reason", ANYTHING, command(EXPIRE, {OrderStatus.CREATED}, OrderStatus.CANCELLED)),
)
