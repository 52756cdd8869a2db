"""Payments' use cases on a real database: any sequence, batches, repetitions, and crashes before the commit.

After each step the table, the published events and the operations of the provider must match a much simpler model of
the contract. Outcomes of the provider are recorded at any later time: late, twice, or by the second of two replicas.
"""

from decimal import Decimal

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from contracts.ids import new_id
from contracts.orders import CancelReason, OrderCancelled, OrderConfirmed, OrderCreated
from payments import queries, rules, use_cases
from payments.models import Payment
from payments.provider import Approved, PaymentProvider
from payments.rules import PaymentMissing
from tests.service.stateful import HUNT, Transactions, received, run_until_seen

USER, ORDERS = new_id(), 4
LIMIT = Decimal("10000.00")
amounts = st.sampled_from([Decimal("0.00"), Decimal("149.90"), LIMIT, LIMIT + Decimal("0.01")])
batches = st.lists(st.integers(0, ORDERS - 1), min_size=1, max_size=6)
crashes = st.sampled_from([False, False, False, True])
kinds = st.sampled_from(["created", "confirmed", "cancelled"])
news = st.lists(st.tuples(kinds, st.integers(0, ORDERS - 1)), min_size=2, max_size=8)


class Till:
    """A minimal model of payments as the contract describes them."""

    def __init__(self):
        self.status = {}
        self.published = []
        self.moved = []

    def created(self, order):
        self.status.setdefault(order, "PENDING")

    def answered(self, order, approved):
        was = self.status[order]
        if was in {"PENDING", "remembered"}:
            if not approved:
                self._become(order, "FAILED", "payment.failed")
            elif was == "PENDING":
                self._become(order, "AUTHORIZED", "payment.authorized")
            else:
                self._become(order, "VOIDED", "payment.voided", "void")

    def confirmed(self, order):
        if self.status[order] == "AUTHORIZED":
            self._become(order, "CAPTURED", "payment.captured", "capture")

    def cancelled(self, order):
        was = self.status.get(order)
        if was is None:
            self.status[order] = "CANCELLED_BEFORE"
        elif was == "PENDING":
            self.status[order] = "remembered"
        elif was == "AUTHORIZED":
            self._become(order, "VOIDED", "payment.voided", "void")
        elif was == "CAPTURED":
            self._become(order, "REFUNDED", "payment.refunded", "refund")

    def _become(self, order, status, event, move=None):
        self.status[order] = status
        self.published.append((event, order))
        if move:
            self.moved.append((move, order))


class Watched(PaymentProvider):
    """The provider, with a record of each operation."""

    def __init__(self):
        super().__init__(LIMIT)
        self.moves = []

    def _move(self, kind, reference, key):
        self.moves.append((kind, key.partition(":")[0]))
        return super()._move(kind, reference, key)


STATUSES = {"PENDING", "remembered", "AUTHORIZED", "FAILED", "CAPTURED", "VOIDED", "REFUNDED", "CANCELLED_BEFORE"}


class Payments(RuleBasedStateMachine):
    """Runs the use cases and the model side by side."""

    transactions = None
    seen = set()  # noqa: RUF012 - the statuses seen in all runs

    @initialize(amounts=st.lists(amounts, min_size=ORDERS, max_size=ORDERS))
    def open_till(self, amounts):
        self.orders = [new_id() for _ in range(ORDERS)]
        self.amounts, self.till, self.published = amounts, Till(), []
        self.provider, self.moved, self.answers = Watched(), [], {}

    # Events

    @rule(batch=batches, crash=crashes)
    def orders_are_created(self, batch, crash):
        self.handle([("created", order) for order in batch], crash)

    @precondition(lambda self: self.till.status)
    @rule(batch=batches, crash=crashes)
    def orders_are_confirmed(self, batch, crash):
        known = [order for order in batch if order in self.till.status]
        if known:
            self.handle([("confirmed", order) for order in known], crash)

    @rule(batch=batches)
    def an_order_is_confirmed_before_it_is_created(self, batch):
        if all(order in self.till.status for order in batch):
            return
        events = [received(self.confirmed(order)) for order in batch]
        with pytest.raises(PaymentMissing), self.transactions.open(self.published) as (session, publish):
            use_cases.follow_orders(session, events, self.provider, publish)
        assert self.provider.moves == [], "the provider was called before the failure was detected"

    @rule(order=st.integers(0, ORDERS - 1))
    def an_order_is_paid(self, order):
        """The usual sequence, from which other rules continue."""
        self.orders_are_created([order], crash=False)
        self.the_provider_is_asked()
        self.record(
            [payment for payment, (about, _) in self.answers.items() if about == self.orders[order]], crash=False
        )

    @precondition(lambda self: "AUTHORIZED" in self.till.status.values())
    @rule(data=st.data())
    def an_authorised_order_is_confirmed(self, data):
        waiting = sorted(order for order, status in self.till.status.items() if status == "AUTHORIZED")
        self.orders_are_confirmed([data.draw(st.sampled_from(waiting), label="order")], crash=False)

    @rule(batch=batches, crash=crashes)
    def orders_are_cancelled(self, batch, crash):
        self.handle([("cancelled", order) for order in batch], crash)

    @rule(news=news, crash=crashes)
    def all_kinds_come_in_one_batch(self, news, crash):
        known, batch = set(self.till.status), []
        for what, order in news:
            if what != "confirmed" or order in known:
                known.add(order)
                batch.append((what, order))
        if batch:
            self.handle(batch, crash)

    def handle(self, news, crash):
        opened = {order for what, order in news if what == "created"} - set(self.till.status)
        with self.transactions.open(self.published, crash=crash) as (session, publish):
            events = [received(getattr(self, what)(order)) for what, order in news]
            must_ask = use_cases.follow_orders(session, events, self.provider, publish)
        if not crash:
            for what, order in news:
                getattr(self.till, what)(order)
            assert must_ask == any(self.till.status[order] in {"PENDING", "remembered"} for order in opened)
        self.note_moves(crash)

    # The provider

    @rule()
    def the_provider_is_asked(self):
        with self.transactions.open([]) as (session, _):
            pending = [each for each in queries.pending_payments(session, None, 10_000) if each.order_id in self.orders]
        waiting = {order for order, status in self.till.status.items() if status in {"PENDING", "remembered"}}
        assert {self.orders.index(each.order_id) for each in pending} == waiting
        answers = use_cases.ask_provider(pending, self.provider)
        self.answers |= {each.payment_id: (each.order_id, answers[each.payment_id]) for each in pending}

    @precondition(lambda self: self.answers)
    @rule(data=st.data(), crash=crashes)
    def answers_are_recorded(self, data, crash):
        known = sorted(self.answers)
        chosen = data.draw(st.sets(st.sampled_from(range(len(known))), min_size=1), label="answers")
        self.record([known[number] for number in sorted(chosen)], crash)

    def record(self, payments, crash):
        answers = {payment: self.answers[payment][1] for payment in payments}
        with self.transactions.open(self.published, crash=crash) as (session, publish):
            use_cases.record_outcomes(session, answers, self.provider, publish)
        if not crash:
            for order in sorted(self.orders.index(self.answers[payment][0]) for payment in answers):
                self.till.answered(order, approved=self.amounts[order] <= LIMIT)
        self.note_moves(crash)

    def note_moves(self, crash):
        """A crashed transaction repeats its provider calls with the same key, which counts once."""
        if not crash:
            self.moved += [
                (kind, [str(order) for order in self.orders].index(order)) for kind, order in self.provider.moves
            ]
        self.provider.moves.clear()

    def created(self, order):
        return OrderCreated(
            order_id=self.orders[order], user_id=USER, total_amount=self.amounts[order], currency="TRY", items=()
        )

    def confirmed(self, order):
        return OrderConfirmed(
            order_id=self.orders[order], user_id=USER, total_amount=self.amounts[order], currency="TRY"
        )

    def cancelled(self, order):
        return OrderCancelled(order_id=self.orders[order], user_id=USER, reason=CancelReason.USER)

    # Invariants after each step

    @invariant()
    def payments_match_the_model(self):
        rows = self.transactions.read(
            """
            SELECT order_id, CASE WHEN status = 'PENDING' AND cancel_requested THEN 'remembered' ELSE status END,
                   amount, transaction_reference IS NOT NULL, failure_reason IS NOT NULL
            FROM payments WHERE order_id = ANY(:orders)
            """,
            orders=self.orders,
        )
        assert {self.orders.index(order): status for order, status, *_ in rows} == self.till.status
        self.seen.update(self.till.status.values())
        for order, status, amount, has_reference, has_reason in rows:
            total = None if status == "CANCELLED_BEFORE" else self.amounts[self.orders.index(order)]
            assert amount == total
            assert has_reference == (status in {"AUTHORIZED", "CAPTURED", "VOIDED", "REFUNDED"})
            assert has_reason == (status == "FAILED")

    @invariant()
    def events_are_published_once_and_in_order(self):
        assert [
            (event.event_type, self.orders.index(event.order_id)) for event in self.published
        ] == self.till.published
        assert all(
            event.amount == self.amounts[self.orders.index(event.order_id)]
            for event in self.published
            if event.event_type == "payment.authorized"
        )

    @invariant()
    def money_moves_once(self):
        assert self.moved == self.till.moved
        assert len(set(self.moved)) == len(self.moved)


MUTANTS = {
    "a second event of the batch for the same order is handled like the first": (
        use_cases,
        "_advance",
        lambda states, each: rules.step_for(states.get(each.event.order_id), type(each.event)),
    ),
    "a remembered cancellation is not read": (Payment, "state", property(lambda row: rules.State(row.status))),
    "changes are not stored": (use_cases, "_store", lambda *_: None),
    "an outcome overwrites a later status of the payment": (
        rules,
        "step_for",
        lambda state, trigger: _STEP_FOR(rules.State.PENDING if trigger is Approved else state, trigger),
    ),
}
_STEP_FOR = rules.step_for


@pytest.fixture
def machine(servers):
    Payments.transactions = Transactions("payments")
    Payments.seen = set()
    yield Payments
    Payments.transactions.close()


def test_payments_do_what_the_contract_says(machine):
    run_until_seen(machine, STATUSES)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_is_caught(machine, mutant, monkeypatch):
    monkeypatch.setattr(*MUTANTS[mutant])
    with pytest.raises(Exception) as caught:
        run_state_machine_as_test(machine, settings=HUNT)
    print(repr(caught.value)[:300])
