"""The life of a payment, as data and pure functions: nothing here reads, writes, sends or asks the provider."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from contracts.orders import OrderCancelled, OrderConfirmed, OrderCreated
from contracts.payments import PaymentAuthorized, PaymentCaptured, PaymentFailed, PaymentRefunded, PaymentVoided
from payments.provider import Approved, Declined

PaymentEvent = PaymentAuthorized | PaymentFailed | PaymentCaptured | PaymentVoided | PaymentRefunded
Trigger = OrderCreated | OrderConfirmed | OrderCancelled | Approved | Declined
"""An event about the order, or an answer of the provider."""


class State(StrEnum):
    """Where the payment of an order stands: the contract's statuses, and two that the outside never sees."""

    PENDING = "PENDING"
    CANCELLING = "CANCELLING"
    """The provider is being asked, and the order was cancelled meanwhile. The outside sees PENDING."""
    AUTHORIZED = "AUTHORIZED"
    FAILED = "FAILED"
    CAPTURED = "CAPTURED"
    VOIDED = "VOIDED"
    REFUNDED = "REFUNDED"
    CANCELLED_BEFORE = "CANCELLED_BEFORE"
    """A tombstone: the order was cancelled before we heard of it, so it is never charged. The outside sees nothing."""


class Operation(StrEnum):
    """What the provider is asked to do with an authorisation."""

    CAPTURE = "capture"
    VOID = "void"
    REFUND = "refund"


class PaymentMissing(Exception):
    """An order was confirmed of which payments has never heard: impossible, unless an event was lost."""


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of a payment, what the provider is asked for, and what is said about it."""

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
    # The cancellation overtakes the provider's answer, or the order itself. An authorisation that was never of
    # use is not announced: only that it is void.
    (State.PENDING, OrderCancelled): Step(State.CANCELLING),
    (State.CANCELLING, Approved): Step(State.VOIDED, Operation.VOID, PaymentVoided),
    (State.CANCELLING, Declined): Step(State.FAILED, publishes=PaymentFailed),
    (None, OrderCancelled): Step(State.CANCELLED_BEFORE),
}
"""Whatever is not in this table changes nothing, but for a confirmation of nothing, which is an error."""

CATCH_UP: Mapping[Operation, tuple[Step, ...]] = {
    Operation.VOID: (STEPS[State.AUTHORIZED, OrderConfirmed], STEPS[State.CAPTURED, OrderCancelled]),
    Operation.CAPTURE: (STEPS[State.AUTHORIZED, OrderCancelled],),
}
"""What to do instead of what the provider refuses, because it has done the opposite already.

A crash after that undid our side of it, and another event about the order came before its event came again. So the
provider's refusal stands for that event: a void is refused after a confirmation, a capture after a cancellation. When
the event itself comes again, it changes nothing any more.
"""


def step_for(state: State | None, trigger: type[Trigger]) -> Step | None:
    """Return what `trigger` does to a payment in `state` (None: there is none); None when nothing.

    Raises PaymentMissing for a confirmation without a payment.
    """
    if state is None and trigger is OrderConfirmed:
        raise PaymentMissing("an order was confirmed that payments has never heard of")
    return STEPS.get((state, trigger))
