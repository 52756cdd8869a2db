"""The states of a payment, as data and pure functions: no I/O and no call of the provider."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from contracts.orders import OrderCancelled, OrderConfirmed, OrderCreated
from contracts.payments import PaymentAuthorized, PaymentCaptured, PaymentFailed, PaymentRefunded, PaymentVoided
from payments.provider import Approved, Declined

PaymentEvent = PaymentAuthorized | PaymentFailed | PaymentCaptured | PaymentVoided | PaymentRefunded
Trigger = OrderCreated | OrderConfirmed | OrderCancelled | Approved | Declined
"""An event about the order, or an outcome of the provider."""


class State(StrEnum):
    """The state of an order's payment: the statuses of the contract, and two internal ones."""

    PENDING = "PENDING"
    CANCELLING = "CANCELLING"
    """The order was cancelled while the provider was asked. Clients see PENDING."""
    AUTHORIZED = "AUTHORIZED"
    FAILED = "FAILED"
    CAPTURED = "CAPTURED"
    VOIDED = "VOIDED"
    REFUNDED = "REFUNDED"
    CANCELLED_BEFORE = "CANCELLED_BEFORE"
    """A tombstone: `order.cancelled` came before `order.created`; the order is never charged. Clients do not see it."""


class Operation(StrEnum):
    """A call of the provider about an authorisation."""

    CAPTURE = "capture"
    VOID = "void"
    REFUND = "refund"


class PaymentMissing(Exception):
    """The confirmed order has no payment: impossible, unless an event was lost."""


@dataclass(frozen=True, slots=True)
class Step:
    """The new state of a payment, the call of the provider, and the event to publish."""

    becomes: State
    asks: Operation | None = None
    publishes: type[PaymentEvent] | None = None


STEPS: Mapping[tuple[State | None, type[Trigger]], Step] = {
    (None, OrderCreated): Step(State.PENDING),
    (State.PENDING, Approved): Step(State.AUTHORIZED, publishes=PaymentAuthorized),
    (State.PENDING, Declined): Step(State.FAILED, publishes=PaymentFailed),
    (State.AUTHORIZED, OrderConfirmed): Step(State.CAPTURED, Operation.CAPTURE, PaymentCaptured),
    (State.AUTHORIZED, OrderCancelled): Step(State.VOIDED, Operation.VOID, PaymentVoided),
    (State.CAPTURED, OrderCancelled): Step(State.REFUNDED, Operation.REFUND, PaymentRefunded),
    # The cancellation overtakes the provider's outcome, or `order.created`. An authorisation that was never used is
    # not published, only that it was voided.
    (State.PENDING, OrderCancelled): Step(State.CANCELLING),
    (State.CANCELLING, Approved): Step(State.VOIDED, Operation.VOID, PaymentVoided),
    (State.CANCELLING, Declined): Step(State.FAILED, publishes=PaymentFailed),
    (None, OrderCancelled): Step(State.CANCELLED_BEFORE),
}
"""Other combinations change nothing, except a confirmation without a payment, which is an error."""

CATCH_UP: Mapping[Operation, tuple[Step, ...]] = {
    Operation.VOID: (STEPS[State.AUTHORIZED, OrderConfirmed], STEPS[State.CAPTURED, OrderCancelled]),
    Operation.CAPTURE: (STEPS[State.AUTHORIZED, OrderCancelled],),
}
"""The steps to take when the provider refuses an operation because it has done the opposite already.

This happens when a crash rolled back our transaction after the provider had acted, and another event about the order
arrived before the first one was redelivered. A refused void means that the order was confirmed, a refused capture that
it was cancelled. The redelivered event then changes nothing.
"""


def step_for(state: State | None, trigger: type[Trigger]) -> Step | None:
    """Return the step for `trigger` in `state` (None: there is no payment); None if nothing changes.

    Raises PaymentMissing for a confirmation without a payment.
    """
    if state is None and trigger is OrderConfirmed:
        raise PaymentMissing("an order was confirmed for which payments has no payment")
    return STEPS.get((state, trigger))
