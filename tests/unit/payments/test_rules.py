"""The state table of a payment: every state, every event and outcome, every sequence of arrival."""

from itertools import permutations, product

import pytest

from contracts.orders import OrderCancelled, OrderConfirmed, OrderCreated
from contracts.payments import PaymentAuthorized, PaymentCaptured, PaymentFailed, PaymentRefunded, PaymentVoided
from payments import rules
from payments.provider import Approved, Declined
from payments.rules import Operation, State, Step

TRIGGERS = (OrderCreated, OrderConfirmed, OrderCancelled, Approved, Declined)
LEADS_TO = {
    (None, OrderCreated): Step(State.PENDING),
    (None, OrderCancelled): Step(State.CANCELLED_BEFORE),
    (State.PENDING, OrderCancelled): Step(State.CANCELLING),
    (State.PENDING, Approved): Step(State.AUTHORIZED, None, PaymentAuthorized),
    (State.PENDING, Declined): Step(State.FAILED, None, PaymentFailed),
    (State.CANCELLING, Approved): Step(State.VOIDED, Operation.VOID, PaymentVoided),
    (State.CANCELLING, Declined): Step(State.FAILED, None, PaymentFailed),
    (State.AUTHORIZED, OrderConfirmed): Step(State.CAPTURED, Operation.CAPTURE, PaymentCaptured),
    (State.AUTHORIZED, OrderCancelled): Step(State.VOIDED, Operation.VOID, PaymentVoided),
    (State.CAPTURED, OrderCancelled): Step(State.REFUNDED, Operation.REFUND, PaymentRefunded),
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


def possible(arrival):
    """Is this sequence possible? An outcome follows its request, and only an authorised order is confirmed."""
    seen = set()
    for trigger in arrival:
        if trigger is Approved and OrderCreated not in seen:
            return False
        if trigger is OrderConfirmed and Approved not in seen:
            return False
        seen.add(trigger)
    return True


ARRIVALS = [
    order
    for length in range(1, 7)
    for order in dict.fromkeys(
        permutations([OrderCreated, OrderConfirmed, OrderCancelled, Approved, OrderCreated, OrderCancelled], length)
    )
    if possible(order)
]


@pytest.mark.parametrize("arrival", ARRIVALS, ids=lambda arrival: "-".join(each.__name__ for each in arrival))
def test_money_moves_once_and_a_cancelled_order_holds_none(arrival):
    state, asked, said, held, taken = None, [], [], 0, 0
    for trigger in arrival:
        step = rules.step_for(state, trigger)
        if step is None:
            continue
        state = step.becomes
        held += (trigger is Approved) - (step.asks in {Operation.CAPTURE, Operation.VOID})
        taken += (step.asks is Operation.CAPTURE) - (step.asks is Operation.REFUND)
        asked += [step.asks] if step.asks else []
        said += [step.publishes] if step.publishes else []
    assert held in {0, 1}
    assert taken in {0, 1}
    assert len(asked) == len(set(asked))
    assert len(said) == len(set(said))
    if OrderCancelled in arrival and state is not State.CANCELLING:
        assert (held, taken) == (0, 0)
        assert state in {State.VOIDED, State.REFUNDED, State.CANCELLED_BEFORE}
    if arrival[0] is OrderCancelled:
        assert (state, asked, said) == (State.CANCELLED_BEFORE, [], [])
