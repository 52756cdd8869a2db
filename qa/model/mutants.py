"""Mutants: each puts a bug into the rules, and the explorer must find it.

A mutant patches data or functions of the real rules, or removes a guarantee of the model's environment that a query or
an extension gives. Its scenario is a small world in which the bug violates an invariant.
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
from payments.provider import Approved, Captured, Operation
from qa.model.explorer import explore
from qa.model.patches import (
    APPLY_REPLY,
    apply_stale_replies,
    confirm_after_cancellation,
    confirm_on,
    forget_refunds,
    ignore_when,
    publish_times,
    reserve_available_lines,
    swap_reasons,
    with_command,
    with_replacement,
    with_row,
    without_guarantee,
    without_lock,
    without_row,
)
from qa.model.scenario import ALL_LEFT, Scenario
from qa.model.scenarios import ALL, EITHER, EXPIRE, RELAY, SHIP, USER, order_of

A, TWO = ((0, 1),), ((0, 1), (1, 1))
PLAIN = Scenario("one order", (order_of(*A),), stock=(1,))
MAY_CANCEL = Scenario("one order, the user cancels", (order_of(*A, may=(USER,), provider=EITHER),), stock=(1,))
ANYTHING = Scenario("one order, every command", (order_of(*A, may=ALL, provider=EITHER),), stock=(1,))
TWO_PRODUCTS = Scenario("one order, one product missing", (order_of(*TWO),), stock=(1, 0))
RIVALS = Scenario("two orders, stock for one", (order_of(*A), order_of(*A)), stock=(1,))
PLENTY = Scenario("two orders, stock for both", (order_of(*A), order_of(*A)), stock=(2,))
MAY_REFUND = Scenario(
    "one order, an administrator refunds two parts, the user cancels",
    (order_of(*A, may=(USER,), refunds=(1, 1)),),
    stock=(1,),
)
REFUND_ALL = Scenario("one order, an administrator refunds all", (order_of(*A, refunds=(ALL_LEFT,)),), stock=(1,))
PERSON = Scenario("one order, an adjustment removes the stock", (order_of(*A),), stock=(1,), adjustments=((0, -1),))


@dataclass(frozen=True)
class Mutant:
    """A bug, the scenario in which it shows, and the patch that introduces it."""

    name: str
    scenario: Scenario
    patch: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext

    def explore(self):
        """Explore the scenario with the bug; the report is broken if the bug was found."""
        with self.patch():
            return explore(self.scenario)


_R, _P = stock.Status, payment.State
_GONE = stock.Step(_R.COMMITTED, on_hand=-1, reserved=-1, publishes=stock_events.StockCommitted)
_FREE = stock.Step(_R.RELEASED, reserved=-1, publishes=stock_events.StockReleased)
_HELD = stock.Step(_R.RESERVED, reserved=+1, publishes=stock_events.StockReserved)
_TAKEN = payment.Step(_P.CAPTURED, payment_events.PaymentCaptured)
_VOIDED = payment.Step(_P.VOIDED, payment_events.PaymentVoided)
_REFUNDED = payment.Step(_P.REFUNDED, payment_events.PaymentRefunded)
_AUTHORISED = payment.Step(_P.AUTHORIZED, payment_events.PaymentAuthorized)
_CAPTURES_NOTHING = {state: asked for state, asked in payment.OPERATIONS.items() if asked is not Operation.CAPTURE}
_PARTLY = payment.Step(_P.PARTIALLY_REFUNDED, payment_events.PaymentPartiallyRefunded)
_REFUNDS_NO_PART = {state: asked for state, asked in payment.OPERATIONS.items() if state is not _P.REFUNDING_PART}
_CONFIRM, _CANCEL, _CREATE = OrderConfirmed, OrderCancelled, OrderCreated

MUTANTS = (
    # Guarantees of queries.py and the extensions
    Mutant("orders does not lock the order's row", without_lock("order")(PLAIN)),
    Mutant("inventory does not lock the order", without_lock("reservation")(MAY_CANCEL)),
    Mutant("payments does not lock the order", without_lock("payment")(MAY_CANCEL)),
    Mutant("inventory does not lock the stock", without_lock("stock")(RIVALS)),
    Mutant("an adjustment does not lock the stock", without_lock("stock")(PERSON)),
    Mutant("the outbox is written after the commit", without_guarantee(PLAIN, outbox_in_transaction=False)),
    Mutant(
        "the inbox is written before the transaction",
        without_guarantee(replace(PLAIN, inbox=True), inbox_in_transaction=False),
    ),
    Mutant("a message is acked before the commit", without_guarantee(PLAIN, acks_after_commit=False)),
    Mutant("the relay deletes before the broker confirms", without_guarantee(RELAY, relay_waits_for_confirm=False)),
    # Inventory
    Mutant("inventory forgets the tombstone", MAY_CANCEL, without_row(stock, (None, _CANCEL))),
    Mutant(
        "inventory reserves despite the tombstone", MAY_CANCEL, with_row(stock, (_R.CANCELLED_BEFORE, _CREATE), _HELD)
    ),
    Mutant("inventory trusts the inbox: releases again", MAY_CANCEL, with_row(stock, (_R.RELEASED, _CANCEL), _FREE)),
    Mutant("inventory trusts the inbox: commits again", PLENTY, with_row(stock, (_R.COMMITTED, _CONFIRM), _GONE)),
    Mutant("inventory commits a released reservation", MAY_CANCEL, with_row(stock, (_R.RELEASED, _CONFIRM), _GONE)),
    Mutant("inventory releases a failed reservation", RIVALS, with_row(stock, (_R.FAILED, _CANCEL), _FREE)),
    Mutant(
        "a commit leaves the units reserved",
        PLAIN,
        with_row(stock, (_R.RESERVED, _CONFIRM), replace(_GONE, reserved=0)),
    ),
    Mutant(
        "a commit leaves the units on hand", PLAIN, with_row(stock, (_R.RESERVED, _CONFIRM), replace(_GONE, on_hand=0))
    ),
    Mutant("a cancellation does not release", MAY_CANCEL, without_row(stock, (_R.RESERVED, _CANCEL))),
    Mutant(
        "a cancellation does not return what was committed", MAY_CANCEL, without_row(stock, (_R.COMMITTED, _CANCEL))
    ),
    Mutant(
        "a return does not increase the stock on hand",
        MAY_CANCEL,
        with_row(stock, (_R.COMMITTED, _CANCEL), replace(_FREE, becomes=_R.RETURNED, reserved=0)),
    ),
    Mutant(
        "a release is not published",
        MAY_CANCEL,
        with_row(stock, (_R.RESERVED, _CANCEL), replace(_FREE, publishes=None)),
    ),
    Mutant(
        "only the available lines are reserved",
        TWO_PRODUCTS,
        with_replacement(stock, "decide", reserve_available_lines),
    ),
    Mutant("shortages are ignored", RIVALS, with_replacement(stock, "shortages", lambda *_: ())),
    Mutant(
        "reserved units count as available",
        RIVALS,
        with_replacement(stock.Balance, "available", property(lambda it: it.on_hand)),
    ),
    Mutant(
        "an adjustment may remove reserved units",
        PERSON,
        with_replacement(stock, "adjust", lambda _, delta: stock.Change(on_hand=delta)),
    ),
    # Payments
    Mutant("payments forgets the tombstone", MAY_CANCEL, without_row(payment, (None, _CANCEL))),
    Mutant(
        "payments charges despite the tombstone",
        MAY_CANCEL,
        with_row(payment, (_P.CANCELLED_BEFORE, _CREATE), payment.Step(_P.PENDING)),
    ),
    Mutant(
        "a cancellation during the provider's call is forgotten",
        MAY_CANCEL,
        without_row(payment, (_P.PENDING, _CANCEL)),
    ),
    Mutant(
        "a payment cancelled while PENDING is still authorised",
        MAY_CANCEL,
        with_row(payment, (_P.CANCELLING, Approved), _AUTHORISED),
    ),
    Mutant("an authorisation is not voided", MAY_CANCEL, without_row(payment, (_P.AUTHORIZED, _CANCEL))),
    Mutant(
        "a captured payment is voided, not refunded",
        MAY_CANCEL,
        with_row(payment, (_P.CAPTURED, _CANCEL), payment.Step(_P.VOIDING)),
    ),
    Mutant("a captured payment is not refunded", MAY_CANCEL, without_row(payment, (_P.CAPTURED, _CANCEL))),
    Mutant("a cancellation during the capture is forgotten", MAY_CANCEL, without_row(payment, (_P.CAPTURING, _CANCEL))),
    Mutant(
        "a payment cancelled during its capture stays captured",
        MAY_CANCEL,
        with_row(payment, (_P.CAPTURING_TO_REFUND, Captured), _TAKEN),
    ),
    Mutant(
        "a payment cancelled during its capture is voided",
        MAY_CANCEL,
        with_row(payment, (_P.CAPTURING, _CANCEL), payment.Step(_P.VOIDING)),
    ),
    Mutant(
        "a refund is recorded, but not requested from the provider",
        MAY_CANCEL,
        with_row(payment, (_P.CAPTURED, _CANCEL), _REFUNDED),
    ),
    Mutant(
        "a void is recorded, but not requested from the provider",
        MAY_CANCEL,
        with_row(payment, (_P.AUTHORIZED, _CANCEL), _VOIDED),
    ),
    Mutant(
        "an authorisation that comes after the cancellation is not voided at the provider",
        MAY_CANCEL,
        with_row(payment, (_P.CANCELLING, Approved), _VOIDED),
    ),
    Mutant(
        "a capture is never requested from the provider",
        PLAIN,
        with_replacement(payment, "OPERATIONS", _CAPTURES_NOTHING),
    ),
    Mutant(
        "payments trusts the inbox: captures again",
        PLAIN,
        with_row(payment, (_P.CAPTURED, _CONFIRM), payment.Step(_P.CAPTURING)),
    ),
    Mutant(
        "a late confirmation captures a voided payment",
        MAY_CANCEL,
        with_row(payment, (_P.VOIDED, _CONFIRM), payment.Step(_P.CAPTURING)),
    ),
    Mutant(
        "the provider's outcome is recorded twice", PLAIN, with_row(payment, (_P.AUTHORIZED, Approved), _AUTHORISED)
    ),
    Mutant("a capture is recorded twice", PLAIN, with_row(payment, (_P.CAPTURED, Captured), _TAKEN)),
    Mutant(
        "a late provider outcome reactivates a voided payment",
        MAY_CANCEL,
        with_row(payment, (_P.VOIDED, Approved), _AUTHORISED),
    ),
    # Refunds
    Mutant("the rest is not refunded after a part", MAY_REFUND, without_row(payment, (_P.PARTIALLY_REFUNDED, _CANCEL))),
    Mutant(
        "a cancellation during a refund is forgotten", MAY_REFUND, without_row(payment, (_P.REFUNDING_PART, _CANCEL))
    ),
    Mutant(
        "a cancellation during a second refund is forgotten",
        MAY_REFUND,
        without_row(payment, (_P.REFUNDING_MORE, _CANCEL)),
    ),
    Mutant(
        "a refund can be requested while all that is left is refunded",
        MAY_REFUND,
        with_row(payment, (_P.REFUNDING, payment.RefundRequested), payment.Step(_P.REFUNDING)),
    ),
    Mutant(
        "a refund can be requested before the capture",
        MAY_REFUND,
        with_row(payment, (_P.AUTHORIZED, payment.RefundRequested), payment.Step(_P.AUTHORIZED)),
    ),
    Mutant(
        "the last refund is published as a part",
        REFUND_ALL,
        with_row(payment, (_P.REFUNDING_PART, payment.FullyRefunded), _PARTLY),
    ),
    Mutant(
        "a refund is not requested from the provider",
        MAY_REFUND,
        with_replacement(payment, "OPERATIONS", _REFUNDS_NO_PART),
    ),
    Mutant("the outcome of a refund that comes again is recorded again", MAY_REFUND, forget_refunds()),
    # Orders
    Mutant("the stock alone confirms", PLAIN, confirm_on(lambda it: it.stock == "RESERVED")),
    Mutant("the payment alone confirms", PLAIN, confirm_on(lambda it: it.payment == "AUTHORIZED")),
    Mutant(
        "both replies do not confirm",
        PLAIN,
        ignore_when(lambda it: (it.stock, it.payment) == ("RESERVED", "AUTHORIZED")),
    ),
    Mutant("missing stock does not cancel", RIVALS, ignore_when(lambda it: it.stock == "FAILED")),
    Mutant("a declined payment does not cancel", MAY_CANCEL, ignore_when(lambda it: it.payment == "FAILED")),
    Mutant("late replies confirm a cancelled order", MAY_CANCEL, confirm_after_cancellation()),
    Mutant("the reasons of a cancellation are swapped", MAY_CANCEL, with_replacement(saga, "_decide", swap_reasons)),
    Mutant("late replies move the statuses back", PLAIN, with_replacement(saga, "apply_reply", apply_stale_replies)),
    Mutant(
        "a returned stock counts as released",
        MAY_CANCEL,
        with_replacement(saga, "apply_reply", lambda it, reply, **_: APPLY_REPLY(it, reply)),
    ),
    Mutant("each decision is published twice", PLAIN, publish_times(lambda _: 2)),
    Mutant(
        "a cancellation is not published",
        MAY_CANCEL,
        publish_times(lambda event: not isinstance(event, OrderCancelled)),
    ),
    Mutant(
        "a shipped order can be cancelled",
        ANYTHING,
        with_command(USER, {OrderStatus.CREATED, OrderStatus.SHIPPED}, OrderStatus.CANCELLED, CancelReason.USER),
    ),
    Mutant(
        "the deadline cancels a confirmed order",
        ANYTHING,
        with_command(EXPIRE, {OrderStatus.CREATED, OrderStatus.CONFIRMED}, OrderStatus.CANCELLED, CancelReason.TIMEOUT),
    ),
    Mutant(
        "an order is shipped before its confirmation",
        ANYTHING,
        with_command(SHIP, {OrderStatus.CREATED}, OrderStatus.SHIPPED),
    ),
    Mutant(
        "a delivered order is cancelled",
        ANYTHING,
        with_command(USER, {OrderStatus.DELIVERED}, OrderStatus.CANCELLED, CancelReason.USER),
    ),
    Mutant(
        "a cancellation by the deadline has no reason",
        ANYTHING,
        with_command(EXPIRE, {OrderStatus.CREATED}, OrderStatus.CANCELLED),
    ),
)
