"""The state table of a payment: every state, every event and outcome, every sequence of arrival."""

from decimal import Decimal
from itertools import permutations, product

import pytest

from contracts.orders import OrderCancelled, OrderConfirmed, OrderCreated
from contracts.payments import (
    PaymentAuthorized,
    PaymentCaptured,
    PaymentFailed,
    PaymentPartiallyRefunded,
    PaymentRefunded,
    PaymentStatus,
    PaymentVoided,
)
from payments import rules
from payments.provider import Approved, Captured, Declined, Operation, Voided
from payments.rules import FullyRefunded, Kind, PartiallyRefunded, PartOfRefundsMade, RefundRequested, State, Step

REFUNDS_MADE = (FullyRefunded, PartiallyRefunded, PartOfRefundsMade)
OUTCOMES = (Approved, Declined, Captured, Voided, *REFUNDS_MADE)
TRIGGERS = (OrderCreated, OrderConfirmed, OrderCancelled, RefundRequested, *OUTCOMES)
REFUNDED = Step(State.REFUNDED, PaymentRefunded)
LEADS_TO = {
    (None, OrderCreated): Step(State.PENDING),
    (None, OrderCancelled): Step(State.CANCELLED_BEFORE),
    (State.PENDING, OrderCancelled): Step(State.CANCELLING),
    (State.PENDING, Approved): Step(State.AUTHORIZED, PaymentAuthorized),
    (State.PENDING, Declined): Step(State.FAILED, PaymentFailed),
    (State.CANCELLING, Approved): Step(State.CANCELLING),
    (State.CANCELLING, Declined): Step(State.FAILED, PaymentFailed),
    (State.CANCELLING, Voided): Step(State.VOIDED, PaymentVoided),
    (State.AUTHORIZED, OrderConfirmed): Step(State.CAPTURING),
    (State.AUTHORIZED, OrderCancelled): Step(State.VOIDING),
    (State.VOIDING, Voided): Step(State.VOIDED, PaymentVoided),
    (State.CAPTURING, Captured): Step(State.CAPTURED, PaymentCaptured),
    (State.CAPTURING, OrderCancelled): Step(State.CAPTURING_TO_REFUND),
    (State.CAPTURING_TO_REFUND, Captured): Step(State.REFUNDING, PaymentCaptured),
    (State.CAPTURED, OrderCancelled): Step(State.REFUNDING),
    (State.CAPTURED, RefundRequested): Step(State.REFUNDING_PART),
    (State.REFUNDING_PART, RefundRequested): Step(State.REFUNDING_PART),
    (State.PARTIALLY_REFUNDED, RefundRequested): Step(State.REFUNDING_MORE),
    (State.REFUNDING_MORE, RefundRequested): Step(State.REFUNDING_MORE),
    (State.REFUNDING_PART, OrderCancelled): Step(State.REFUNDING),
    (State.PARTIALLY_REFUNDED, OrderCancelled): Step(State.REFUNDING_REST),
    (State.REFUNDING_MORE, OrderCancelled): Step(State.REFUNDING_REST),
    **{
        (state, made): Step(becomes, PaymentPartiallyRefunded)
        for state in (State.REFUNDING_PART, State.REFUNDING_MORE)
        for made, becomes in (
            (PartiallyRefunded, State.PARTIALLY_REFUNDED),
            (PartOfRefundsMade, State.REFUNDING_MORE),
        )
    },
    **{
        (state, made): Step(State.REFUNDING_REST, PaymentPartiallyRefunded)
        for state in (State.REFUNDING, State.REFUNDING_REST)
        for made in (PartiallyRefunded, PartOfRefundsMade)
    },
    **{
        (state, FullyRefunded): REFUNDED
        for state in (State.REFUNDING_PART, State.REFUNDING_MORE, State.REFUNDING, State.REFUNDING_REST)
    },
}
OUTCOME_OF = {
    Operation.AUTHORISE: Approved,
    Operation.CAPTURE: Captured,
    Operation.VOID: Voided,
    Operation.REFUND: FullyRefunded,
}


@pytest.mark.parametrize(("state", "trigger"), LEADS_TO)
def test_the_transitions_of_the_table(state, trigger):
    assert rules.step_for(state, trigger) == LEADS_TO[state, trigger]


@pytest.mark.parametrize(
    ("state", "trigger"),
    [pair for pair in product((None, *State), TRIGGERS) if pair not in LEADS_TO and pair != (None, OrderConfirmed)],
)
def test_all_other_pairs_change_nothing(state, trigger):
    assert rules.step_for(state, trigger) is None


def test_a_confirmation_without_a_payment_is_an_error():
    with pytest.raises(rules.PaymentMissing):
        rules.step_for(None, OrderConfirmed)


@pytest.mark.parametrize("state", State)
def test_a_state_is_stored_in_columns_and_read_from_them(state):
    status, capture, cancel = rules.STORED[state]
    pending = state in rules.REFUND_PENDING.values()
    found = rules.state_of(status, capture_requested=capture, cancel_requested=cancel, is_refund_pending=pending)
    assert found is state
    assert status in {*PaymentStatus, State.CANCELLED_BEFORE}


@pytest.mark.parametrize(("status", "state"), [("CAPTURED", State.REFUNDING), ("PARTIALLY_REFUNDED", "REFUNDING_REST")])
@pytest.mark.parametrize("pending", [False, True])
def test_a_cancelled_order_is_refunded_whether_or_not_a_refund_was_requested_before(status, state, pending):
    found = rules.state_of(status, capture_requested=True, cancel_requested=True, is_refund_pending=pending)
    assert found == state


@pytest.mark.parametrize(
    ("requested", "refunded", "made"),
    [
        ("20.00", "20.00", FullyRefunded),
        ("20.00", "5.00", PartOfRefundsMade),
        ("5.00", "5.00", PartiallyRefunded),
        ("5.01", "5.00", PartOfRefundsMade),
    ],
)
def test_the_sums_say_what_a_refund_was(requested, refunded, made):
    assert rules.refund_made(Decimal("20.00"), Decimal(requested), Decimal(refunded)) is made


def test_an_order_that_costs_nothing_is_refunded_in_full():
    assert rules.refund_made(Decimal(0), Decimal(0), Decimal(0)) is FullyRefunded


@pytest.mark.parametrize(
    ("status", "cancel_requested", "state"),
    [
        ("PENDING", True, State.CANCELLING),
        ("CAPTURED", False, State.CAPTURED),
        ("VOIDED", True, State.VOIDED),
        ("FAILED", True, State.FAILED),
    ],
)
def test_rows_of_the_previous_version_are_read(status, cancel_requested, state):
    assert rules.state_of(status, capture_requested=False, cancel_requested=cancel_requested) is state


@pytest.mark.parametrize("state", rules.OPERATIONS)
def test_the_outcome_of_every_operation_leads_on(state):
    step = rules.step_for(state, OUTCOME_OF[rules.OPERATIONS[state]])
    assert step is not None
    assert step.becomes is not state


@pytest.mark.parametrize("state", State)
def test_an_order_waits_for_its_authorisation_only(state):
    expected = None if state not in rules.OPERATIONS else Kind.SETTLEMENT
    assert rules.kind_of(state) == (Kind.AUTHORISATION if state is State.PENDING else expected)


def possible(arrival):
    """Is this sequence possible? An order is created and authorised before it is confirmed, and each step is once."""
    return OrderConfirmed not in arrival or OrderCreated in arrival[: arrival.index(OrderConfirmed)]


EVENTS = [OrderCreated, OrderConfirmed, OrderCancelled, OrderCreated, OrderCancelled]
WITH_REFUNDS = [OrderCreated, OrderConfirmed, OrderCancelled, RefundRequested, RefundRequested]
ARRIVALS = [
    arrival
    for triggers in (EVENTS, WITH_REFUNDS)
    for length in range(1, 6)
    for arrival in dict.fromkeys(permutations(triggers, length))
    if possible(arrival)
]
AMOUNT = 3


class Money:
    """Follows one payment: the provider answers after some of the events, as `answers` says, and always at the end.

    Every refund that is requested is one of the AMOUNT units.
    """

    def __init__(self):
        self.state, self.done, self.said = None, [], []
        self.pending, self.refunded = 0, 0

    def hear(self, trigger):
        step = rules.step_for(self.state, trigger)
        if step is not None:
            self.state = step.becomes
            self.said += [step.publishes] if step.publishes else []
            self.pending += trigger is RefundRequested

    def answer(self):
        operation = rules.OPERATIONS.get(self.state)
        if operation is Operation.REFUND:
            units = 1 if self.pending else AMOUNT - self.refunded
            self.pending -= 1 if self.pending else 0
            self.refunded += units
            self.hear(rules.refund_made(AMOUNT, self.refunded + self.pending, self.refunded))
        elif operation is not None:
            self.done.append(operation)
            self.hear(OUTCOME_OF[operation])

    @property
    def is_held(self):
        return Operation.AUTHORISE in self.done and not {Operation.CAPTURE, Operation.VOID} & {*self.done}

    @property
    def is_taken(self):
        return Operation.CAPTURE in self.done and self.refunded < AMOUNT


@pytest.mark.parametrize("arrival", ARRIVALS, ids=lambda arrival: "-".join(each.__name__ for each in arrival))
def test_money_moves_once_and_a_cancelled_order_holds_none(arrival):
    for answers in product((False, True), repeat=len(arrival)):
        payment = Money()
        for trigger, answered in zip(arrival, answers, strict=True):
            payment.hear(trigger)
            if answered:
                payment.answer()
        for _ in range(6):
            payment.answer()
        assert payment.state not in rules.OPERATIONS, "the provider was asked everything"
        assert len(payment.done) == len(set(payment.done))
        assert payment.refunded <= AMOUNT
        assert payment.refunded == 0 or Operation.CAPTURE in payment.done
        said = [each for each in payment.said if each is not PaymentPartiallyRefunded]
        assert len(said) == len(set(said))
        assert (PaymentRefunded in said) == (payment.state is State.REFUNDED)
        if OrderCancelled in arrival:
            assert not payment.is_held
            assert not payment.is_taken
            assert payment.state in {State.VOIDED, State.REFUNDED, State.CANCELLED_BEFORE}
        if arrival[0] is OrderCancelled:
            assert (payment.state, payment.done, payment.said) == (State.CANCELLED_BEFORE, [], [])
