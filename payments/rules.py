"""The states of a payment, as data and pure functions: no I/O and no call of the provider.

An event about the order changes the state. `OPERATIONS` has the call of the provider that each state needs. The call
is made afterwards, outside of any transaction. Its outcome leads to the next state.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from contracts.orders import OrderCancelled, OrderConfirmed, OrderCreated
from contracts.payments import (
    PaymentAuthorized,
    PaymentCaptured,
    PaymentFailed,
    PaymentPartiallyRefunded,
    PaymentRefunded,
    PaymentVoided,
)
from payments.provider import Approved, Captured, Declined, Operation, Voided

PaymentEvent = (
    PaymentAuthorized | PaymentFailed | PaymentCaptured | PaymentVoided | PaymentPartiallyRefunded | PaymentRefunded
)


class RefundRequested:
    """An administrator asks for a refund."""


class FullyRefunded:
    """The provider has made a refund, and nothing is left."""


class PartiallyRefunded:
    """The provider has made a refund. Something is left, and no further refund was requested."""


class PartOfRefundsMade:
    """The provider has made a refund. Something is left, and further refunds were requested."""


RefundMade = FullyRefunded | PartiallyRefunded | PartOfRefundsMade
Trigger = (
    OrderCreated
    | OrderConfirmed
    | OrderCancelled
    | RefundRequested
    | Approved
    | Declined
    | Captured
    | Voided
    | RefundMade
)
"""An event about the order, the request of an administrator, or an outcome of the provider."""


class State(StrEnum):
    """The state of an order's payment: the statuses of the contract, and internal ones."""

    PENDING = "PENDING"
    CANCELLING = "CANCELLING"
    """The order was cancelled before the outcome of the authorisation was known. Clients see PENDING."""
    AUTHORIZED = "AUTHORIZED"
    CAPTURING = "CAPTURING"
    """The order was confirmed. Clients see AUTHORIZED until the provider has captured."""
    CAPTURING_TO_REFUND = "CAPTURING_TO_REFUND"
    """The order was confirmed, and cancelled before the provider had captured. Clients see AUTHORIZED."""
    VOIDING = "VOIDING"
    """The order was cancelled. Clients see AUTHORIZED until the provider has voided."""
    REFUNDING_PART = "REFUNDING_PART"
    """An administrator asked for a refund. Clients see CAPTURED until the provider has made it."""
    REFUNDING_MORE = "REFUNDING_MORE"
    """As before, after an earlier refund. Clients see PARTIALLY_REFUNDED."""
    REFUNDING = "REFUNDING"
    """The order was cancelled after the capture: all that is left is refunded, after the refunds that were requested
    before. Clients see CAPTURED until the provider has made the first refund."""
    REFUNDING_REST = "REFUNDING_REST"
    """As before, after an earlier refund. Clients see PARTIALLY_REFUNDED."""
    FAILED = "FAILED"
    CAPTURED = "CAPTURED"
    VOIDED = "VOIDED"
    PARTIALLY_REFUNDED = "PARTIALLY_REFUNDED"
    REFUNDED = "REFUNDED"
    CANCELLED_BEFORE = "CANCELLED_BEFORE"
    """A tombstone: `order.cancelled` came before `order.created`; the order is never charged. Clients do not see it."""


class Kind(StrEnum):
    """The kinds of work items: an authorisation, or a settlement (what follows the decision: capture, void, refund).

    Each has its own limits: settlements never delay authorisations, for which undecided orders wait.
    """

    AUTHORISATION = "authorisation"
    SETTLEMENT = "settlement"


class PaymentMissing(Exception):
    """A confirmed order has no payment. This happens only if an event was lost."""


@dataclass(frozen=True, slots=True)
class Step:
    """The new state of a payment, and the event to publish."""

    becomes: State
    publishes: type[PaymentEvent] | None = None


STEPS: Mapping[tuple[State | None, type[Trigger]], Step] = {
    (None, OrderCreated): Step(State.PENDING),
    (State.PENDING, Approved): Step(State.AUTHORIZED, PaymentAuthorized),
    (State.PENDING, Declined): Step(State.FAILED, PaymentFailed),
    (State.AUTHORIZED, OrderConfirmed): Step(State.CAPTURING),
    (State.CAPTURING, Captured): Step(State.CAPTURED, PaymentCaptured),
    (State.AUTHORIZED, OrderCancelled): Step(State.VOIDING),
    (State.VOIDING, Voided): Step(State.VOIDED, PaymentVoided),
    (State.CAPTURED, OrderCancelled): Step(State.REFUNDING),
    (State.REFUNDING, FullyRefunded): Step(State.REFUNDED, PaymentRefunded),
    # Refunds that administrators ask for. Once the order is cancelled, they can ask for none: nothing is left.
    (State.CAPTURED, RefundRequested): Step(State.REFUNDING_PART),
    (State.REFUNDING_PART, RefundRequested): Step(State.REFUNDING_PART),
    (State.REFUNDING_PART, PartOfRefundsMade): Step(State.REFUNDING_MORE, PaymentPartiallyRefunded),
    (State.REFUNDING_PART, PartiallyRefunded): Step(State.PARTIALLY_REFUNDED, PaymentPartiallyRefunded),
    (State.REFUNDING_PART, FullyRefunded): Step(State.REFUNDED, PaymentRefunded),
    (State.PARTIALLY_REFUNDED, RefundRequested): Step(State.REFUNDING_MORE),
    (State.REFUNDING_MORE, RefundRequested): Step(State.REFUNDING_MORE),
    (State.REFUNDING_MORE, PartOfRefundsMade): Step(State.REFUNDING_MORE, PaymentPartiallyRefunded),
    (State.REFUNDING_MORE, PartiallyRefunded): Step(State.PARTIALLY_REFUNDED, PaymentPartiallyRefunded),
    (State.REFUNDING_MORE, FullyRefunded): Step(State.REFUNDED, PaymentRefunded),
    # The order is cancelled before, during or after such a refund.
    (State.REFUNDING_PART, OrderCancelled): Step(State.REFUNDING),
    (State.PARTIALLY_REFUNDED, OrderCancelled): Step(State.REFUNDING_REST),
    (State.REFUNDING_MORE, OrderCancelled): Step(State.REFUNDING_REST),
    (State.REFUNDING, PartOfRefundsMade): Step(State.REFUNDING_REST, PaymentPartiallyRefunded),
    (State.REFUNDING, PartiallyRefunded): Step(State.REFUNDING_REST, PaymentPartiallyRefunded),
    (State.REFUNDING_REST, PartOfRefundsMade): Step(State.REFUNDING_REST, PaymentPartiallyRefunded),
    (State.REFUNDING_REST, PartiallyRefunded): Step(State.REFUNDING_REST, PaymentPartiallyRefunded),
    (State.REFUNDING_REST, FullyRefunded): Step(State.REFUNDED, PaymentRefunded),
    # The order is cancelled during a call of the provider, or `order.cancelled` arrives before `order.created`.
    # An authorisation that arrives after the cancellation is not published; only `payment.voided` is.
    (State.PENDING, OrderCancelled): Step(State.CANCELLING),
    (State.CANCELLING, Approved): Step(State.CANCELLING),
    (State.CANCELLING, Declined): Step(State.FAILED, PaymentFailed),
    (State.CANCELLING, Voided): Step(State.VOIDED, PaymentVoided),
    (State.CAPTURING, OrderCancelled): Step(State.CAPTURING_TO_REFUND),
    (State.CAPTURING_TO_REFUND, Captured): Step(State.REFUNDING, PaymentCaptured),
    (None, OrderCancelled): Step(State.CANCELLED_BEFORE),
}
"""Other combinations change nothing, except a confirmation without a payment, which is an error."""

OPERATIONS: Mapping[State, Operation] = {
    State.PENDING: Operation.AUTHORISE,
    State.CANCELLING: Operation.VOID,
    State.CAPTURING: Operation.CAPTURE,
    State.CAPTURING_TO_REFUND: Operation.CAPTURE,
    State.VOIDING: Operation.VOID,
    State.REFUNDING_PART: Operation.REFUND,
    State.REFUNDING_MORE: Operation.REFUND,
    State.REFUNDING: Operation.REFUND,
    State.REFUNDING_REST: Operation.REFUND,
}
"""The call of the provider that each state needs. Other states need none."""


class Stored(NamedTuple):
    """The columns of a payment that store its state, together with its amounts (see REFUND_PENDING)."""

    status: str
    capture_requested: bool
    cancel_requested: bool


STORED: Mapping[State, Stored] = {
    State.PENDING: Stored("PENDING", False, False),
    State.CANCELLING: Stored("PENDING", False, True),
    State.AUTHORIZED: Stored("AUTHORIZED", False, False),
    State.CAPTURING: Stored("AUTHORIZED", True, False),
    State.CAPTURING_TO_REFUND: Stored("AUTHORIZED", True, True),
    State.VOIDING: Stored("AUTHORIZED", False, True),
    State.CAPTURED: Stored("CAPTURED", True, False),
    State.REFUNDING_PART: Stored("CAPTURED", True, False),
    State.REFUNDING: Stored("CAPTURED", True, True),
    State.PARTIALLY_REFUNDED: Stored("PARTIALLY_REFUNDED", True, False),
    State.REFUNDING_MORE: Stored("PARTIALLY_REFUNDED", True, False),
    State.REFUNDING_REST: Stored("PARTIALLY_REFUNDED", True, True),
    State.FAILED: Stored("FAILED", False, False),
    State.VOIDED: Stored("VOIDED", False, False),
    State.REFUNDED: Stored("REFUNDED", False, False),
    State.CANCELLED_BEFORE: Stored("CANCELLED_BEFORE", False, False),
}
REFUND_PENDING = {State.CAPTURED: State.REFUNDING_PART, State.PARTIALLY_REFUNDED: State.REFUNDING_MORE}
"""These states have the same columns. Which of the two it is depends on whether a requested refund is not made yet."""
_STATES = {stored: state for state, stored in STORED.items() if state not in REFUND_PENDING.values()}


def state_of(status: str, *, capture_requested: bool, cancel_requested: bool, is_refund_pending: bool = False) -> State:
    """Return the state that these columns store. Rows that earlier versions of the service wrote are understood.

    `is_refund_pending`: the requested refunds are more than those that were made.
    """
    if status in {State.CAPTURED, State.PARTIALLY_REFUNDED}:
        capture_requested = True
    elif status not in {State.PENDING, State.AUTHORIZED}:
        capture_requested = cancel_requested = False
    state = _STATES[Stored(status, capture_requested, cancel_requested)]
    return REFUND_PENDING.get(state, state) if is_refund_pending else state


def refund_made(amount: Decimal, requested: Decimal, refunded: Decimal) -> type[RefundMade]:
    """Return what a refund was, by the sums after it.

    `amount` was captured, `requested` is the sum of all refunds, `refunded` of those that were made.
    """
    if refunded == amount:
        return FullyRefunded
    return PartiallyRefunded if refunded == requested else PartOfRefundsMade


def kind_of(state: State) -> Kind | None:
    """Return the kind of the work item of a payment in this state; None if there is nothing to do."""
    if state not in OPERATIONS:
        return None
    return Kind.AUTHORISATION if OPERATIONS[state] is Operation.AUTHORISE else Kind.SETTLEMENT


def step_for(state: State | None, trigger: type[Trigger]) -> Step | None:
    """Return the step for `trigger` in `state`, which is None if there is no payment. Returns None if nothing changes.

    Raises PaymentMissing for a confirmation without a payment.
    """
    if state is None and trigger is OrderConfirmed:
        raise PaymentMissing("an order was confirmed for which payments has no payment")
    return STEPS.get((state, trigger))
