"""Payments' use cases on a real database: any sequence, batches, repetitions, and crashes before the commit.

After each step the table, the work items, the published events and the operations of the provider must match a much
simpler model of the contract. The provider is asked under leases, which may end: then another process asks again, and
only the outcome of the latest lease is recorded, at any later time.
"""

import copy
from collections import defaultdict
from decimal import Decimal

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from sqlalchemy import text

from contracts.base import OPERATOR, StoredCause
from contracts.errors import InvalidState
from contracts.ids import new_id
from contracts.orders import CancelReason, OrderCancelled, OrderConfirmed, OrderCreated
from contracts.payments import RefundPayment
from extensions.storage import work_items
from payments import refunds, rules, use_cases
from payments.models import Payment
from payments.provider import Approved, SimulatedProvider
from payments.rules import Kind, PaymentMissing
from payments.simulated_provider import MemoryLedger
from tests.service.stateful import Transactions, hunt, received, run_until_seen

USER, ORDERS = new_id(), 4
CAUSE = StoredCause(new_id(), "request", "trace")
LIMIT = Decimal("10000.00")
amounts = st.sampled_from([Decimal("0.00"), Decimal("149.90"), LIMIT, LIMIT + Decimal("0.01")])
refunds_asked = st.sampled_from([None, Decimal("0.01"), Decimal("50.00"), Decimal("149.90"), LIMIT])
batches = st.lists(st.integers(0, ORDERS - 1), min_size=1, max_size=6)
crashes = st.sampled_from([False, False, False, True])
kinds = st.sampled_from(["created", "confirmed", "cancelled"])
news = st.lists(st.tuples(kinds, st.integers(0, ORDERS - 1)), min_size=2, max_size=8)

ASKS = {
    "PENDING": "authorise",
    "remembered": "void",
    "capturing": "capture",
    "capturing, cancelled": "capture",
    "voiding": "void",
    "refunding": "refund",
    "refund requested": "refund",
}
"""What the provider is asked in each state of the model."""


class Till:
    """A minimal model of payments as the contract describes them."""

    def __init__(self, amounts):
        self.amounts = amounts
        self.status = {}
        self.published = []
        # By order: the amounts of refunds that were requested and not made yet, and of those that were made.
        self.waiting, self.made = defaultdict(list), defaultdict(list)

    def created(self, order):
        self.status.setdefault(order, "PENDING")

    def confirmed(self, order):
        if self.status[order] == "AUTHORIZED":
            self.status[order] = "capturing"

    def cancelled(self, order):
        becomes = {
            None: "CANCELLED_BEFORE",
            "PENDING": "remembered",
            "AUTHORIZED": "voiding",
            "capturing": "capturing, cancelled",
            "CAPTURED": "refunding",
            "PARTIALLY_REFUNDED": "refunding",
            "refund requested": "refunding",
        }
        was = self.status.get(order)
        if was in becomes:
            self.status[order] = becomes[was]

    def left(self, order):
        """What can still be refunded of an order."""
        return self.amounts[order] - sum(self.waiting[order]) - sum(self.made[order])

    def requested(self, order, amount):
        """Return whether the refund is possible; None stands for all that is left."""
        amount = self.left(order) if amount is None else amount
        is_captured = self.status.get(order) in {"CAPTURED", "PARTIALLY_REFUNDED", "refund requested"}
        if not is_captured or not 0 < amount <= self.left(order):
            return False
        self.status[order] = "refund requested"
        self.waiting[order].append(amount)
        return True

    def refunded(self, order):
        """The provider has made the oldest refund, or the one of all that is left."""
        amount = self.waiting[order].pop(0) if self.waiting[order] else self.left(order)
        self.made[order].append(amount)
        if sum(self.made[order]) == self.amounts[order]:
            self._become(order, "REFUNDED", "payment.refunded")
            return
        if self.status[order] == "refund requested" and not self.waiting[order]:
            self.status[order] = "PARTIALLY_REFUNDED"
        self.published.append(("payment.partially_refunded", order))

    def answered(self, order, operation, approved):
        was = self.status[order]
        if operation == "authorise":
            if not approved:
                self._become(order, "FAILED", "payment.failed")
            elif was == "PENDING":
                self._become(order, "AUTHORIZED", "payment.authorized")
        elif operation == "capture":
            self._become(order, "CAPTURED" if was == "capturing" else "refunding", "payment.captured")
        elif operation == "void":
            self._become(order, "VOIDED", "payment.voided")
        else:
            self.refunded(order)

    def _become(self, order, status, event):
        self.status[order] = status
        self.published.append((event, order))

    @property
    def asks(self):
        """What the provider has to be asked, by order."""
        return {order: ASKS[status] for order, status in self.status.items() if status in ASKS}


# The names of the model's states by the columns of a payment.
STATES = {
    ("PENDING", False, True): "remembered",
    ("AUTHORIZED", True, False): "capturing",
    ("AUTHORIZED", True, True): "capturing, cancelled",
    ("AUTHORIZED", False, True): "voiding",
    ("CAPTURED", True, True): "refunding",
    ("PARTIALLY_REFUNDED", True, True): "refunding",
}
STATUSES = {
    *("PENDING", "AUTHORIZED", "FAILED", "CAPTURED", "VOIDED", "PARTIALLY_REFUNDED", "REFUNDED", "CANCELLED_BEFORE"),
    *STATES.values(),
    "refund requested",
}
DONE = {
    "capturing": {"authorise"},
    "CAPTURED": {"authorise", "capture"},
    "refunding": {"authorise", "capture"},
    "refund requested": {"authorise", "capture"},
    "PARTIALLY_REFUNDED": {"authorise", "capture", "refund"},
    "REFUNDED": {"authorise", "capture", "refund"},
    "VOIDED": {"void"},
}
"""What the provider has done at least."""


class Payments(RuleBasedStateMachine):
    """Runs the use cases and the model side by side."""

    transactions = None
    seen = set()  # noqa: RUF012 - the statuses seen in all runs

    @initialize(amounts=st.lists(amounts, min_size=ORDERS, max_size=ORDERS))
    def open_till(self, amounts):
        self.orders = [new_id() for _ in range(ORDERS)]
        self.amounts, self.till, self.published = amounts, Till(amounts), []
        self.ledger = MemoryLedger()
        self.calls = use_cases.ProviderCalls(SimulatedProvider(LIMIT, self.ledger))
        self.results = []  # (order, operation, item, outcome)
        # The latest lease of each order that is being asked about, and the orders whose lease has ended. Until another
        # process claims such an order, its result may still be recorded.
        self.leases, self.ended = {}, set()
        with self.transactions.open([]) as (session, _):
            session.execute(text("DELETE FROM work_items"))

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
        with pytest.raises(PaymentMissing), self.transactions.open(self.published) as (session, _):
            use_cases.apply_order_events(session, events)

    @rule(order=st.integers(0, ORDERS - 1))
    def an_order_is_paid(self, order):
        """The usual sequence, from which other rules continue."""
        self.orders_are_created([order], crash=False)
        self.everything_is_asked_and_recorded()

    @rule(order=st.integers(0, ORDERS - 1))
    def an_order_is_captured(self, order):
        """The same, one step further."""
        self.an_order_is_paid(order)
        self.orders_are_confirmed([order], crash=False)
        self.everything_is_asked_and_recorded()

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
        with self.transactions.open(self.published, crash=crash) as (session, _):
            events = [received(getattr(self, what)(order)) for what, order in news]
            has_calls = use_cases.apply_order_events(session, events)
        if not crash:
            before = self.till.asks
            for what, order in news:
                getattr(self.till, what)(order)
            assert has_calls or self.till.asks == before

    # Requests of administrators

    @precondition(lambda self: {"CAPTURED", "PARTIALLY_REFUNDED", "refund requested"} & {*self.till.status.values()})
    @rule(data=st.data(), amount=refunds_asked, crash=crashes)
    def a_captured_payment_is_refunded(self, data, amount, crash):
        captured = {"CAPTURED", "PARTIALLY_REFUNDED", "refund requested"}
        possible = sorted(order for order, status in self.till.status.items() if status in captured)
        self.refund(data.draw(st.sampled_from(possible), label="order"), amount, crash)

    def refund(self, order, amount, crash):
        [(payment_id,)] = self.transactions.read(
            "SELECT id FROM payments WHERE order_id = ANY(:orders)", orders=[self.orders[order]]
        )
        before = copy.deepcopy(self.till)
        wanted = RefundPayment.model_validate({"amount": amount, "reason": "a complaint"})
        if not self.till.requested(order, amount):
            with pytest.raises(InvalidState), self.transactions.open(self.published) as (session, _):
                refunds.request_refund(session, payment_id, wanted, OPERATOR, CAUSE)
            return
        with self.transactions.open(self.published, crash=crash) as (session, _):
            refunds.request_refund(session, payment_id, wanted, OPERATOR, CAUSE)
        if crash:
            self.till = before

    # The provider

    @rule()
    def the_provider_is_asked(self):
        """Claim what is due, and ask; the outcomes are recorded later, or never."""
        for kind in Kind:
            with self.transactions.open([]) as (session, _):
                items = work_items.claim(session, kind, "test", fresh=100, again=100, seconds=3600, longest_pause=3600)
                calls = self.calls.prepare(session, items)
            assert {item.key for item in items} == set(calls)
            for item in items:
                self._ask(item, calls[item.key])
        assert set(self.till.asks) == set(self.leases), "everything is being asked now"

    def _ask(self, item, call):
        order = [str(each) for each in self.orders].index(call.authorisation.partition(":")[0])
        assert call.operation == self.till.asks[order]
        assert order not in self.leases or order in self.ended, "two processes ask about one payment"
        self.leases[order] = item.lease
        self.ended.discard(order)
        [outcome] = self.calls.execute(call)
        self.results.append((order, str(call.operation), item, outcome))

    @precondition(lambda self: self.leases)
    @rule()
    def the_leases_end(self):
        with self.transactions.open([]) as (session, _):
            session.execute(text("UPDATE work_items SET next_attempt_at = clock_timestamp() WHERE lease IS NOT NULL"))
        self.ended |= set(self.leases)

    @precondition(lambda self: self.results)
    @rule(data=st.data(), crash=crashes)
    def outcomes_are_recorded(self, data, crash):
        chosen = data.draw(st.sets(st.integers(0, len(self.results) - 1), min_size=1), label="results")
        self.record([self.results[number] for number in sorted(chosen)], crash)

    def everything_is_asked_and_recorded(self):
        self.the_provider_is_asked()
        self.record([each for each in self.results if self.leases.get(each[0]) == each[2].lease], crash=False)

    def record(self, results, crash):
        """Record as the recorder does: one result for each item, those whose lease is still held."""
        results = sorted({item.key: (order, op, item, outcome) for order, op, item, outcome in results}.values())
        outcomes = {item.key: outcome for _, _, item, outcome in results}
        with self.transactions.open(self.published, crash=crash) as (session, publish):
            held, locked = work_items.lock_held(session, [item for _, _, item, _ in results])
            decided = self.calls.record(session, {key: outcomes[key] for key in held}, publish) if held else {}
            assert (locked, set(decided)) == (set(), held)
            work_items.finish(session, [key for key, kind in decided.items() if kind is None])
            work_items.continue_with(session, {key: kind for key, kind in decided.items() if kind is not None})
        if crash:
            return
        for order, operation, item, _ in results:
            if self.leases.get(order) == item.lease:
                del self.leases[order]
                self.ended.discard(order)
                self.till.answered(order, operation, approved=self.amounts[order] <= LIMIT)

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
            SELECT order_id, CASE WHEN refunded_amount < refund_requested_amount AND NOT cancel_requested
                             THEN 'refund requested' ELSE status END AS status,
                   capture_requested, cancel_requested, amount, transaction_reference IS NOT NULL,
                   failure_reason IS NOT NULL
            FROM payments WHERE order_id = ANY(:orders)
            """,
            orders=self.orders,
        )
        found = {self.orders.index(order): STATES.get(tuple(state), state[0]) for order, *state, _, _, _ in rows}
        assert found == self.till.status
        self.seen.update(found.values())
        for order, status, *_, amount, has_reference, has_reason in rows:
            total = None if status == "CANCELLED_BEFORE" else self.amounts[self.orders.index(order)]
            assert amount == total
            assert has_reference or status not in {"AUTHORIZED", "CAPTURED", "REFUNDED"}
            assert has_reason == (status == "FAILED")

    @invariant()
    def refunds_are_at_most_what_was_captured(self):
        rows = self.transactions.read(
            """
            SELECT order_id, payments.amount, refund_requested_amount, refunded_amount,
                   coalesce(sum(refunds.amount), 0),
                   coalesce(sum(refunds.amount) FILTER (WHERE refunds.status = 'SUCCEEDED'), 0)
            FROM payments LEFT JOIN refunds ON payment_id = payments.id
            WHERE order_id = ANY(:orders) AND payments.amount IS NOT NULL GROUP BY payments.id
            """,
            orders=self.orders,
        )
        for order_id, amount, requested, made, sum_requested, sum_made in rows:
            order = self.orders.index(order_id)
            given_back = sum(self.ledger.refunded(f"{order_id}:authorise"))
            assert (requested, made) == (sum_requested, sum_made)
            assert made == sum(self.till.made[order])
            assert requested == made + sum(self.till.waiting[order])
            assert made <= given_back <= amount
            assert requested <= amount

    @invariant()
    def there_is_a_work_item_for_each_call(self):
        keys = self.transactions.read(
            "SELECT order_id FROM work_items JOIN payments ON CAST(payments.id AS text) = key"
            " WHERE order_id = ANY(:ids)",
            ids=self.orders,
        )
        assert sorted(self.orders.index(order) for (order,) in keys) == sorted(self.till.asks)

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
    def the_provider_has_done_what_the_status_says(self):
        for order, status in self.till.status.items():
            done = self.ledger.done(f"{self.orders[order]}:authorise")
            assert done >= DONE.get(status, set())
            assert status != "VOIDED" or "capture" not in done
            assert status != "FAILED" or "authorise" not in done
            assert not {"capture", "void"} <= done


_STEP_FOR = rules.step_for

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
    "every refund counts as a full one": (rules, "refund_made", lambda *_: rules.FullyRefunded),
    "all refunds of an order have the same key": (refunds, "key_of", lambda order_id, _: f"{order_id}:refund"),
    "the sums of the refunds are not stored": (refunds, "sums_after", lambda *_: {}),
    "the calls are not scheduled": (work_items, "schedule", lambda *_: None),
    "the next step is forgotten": (work_items, "continue_with", lambda *_: None),
    "the result of a lost lease is recorded": (
        work_items,
        "lock_held",
        lambda _, items: ({item.key for item in items}, set()),
    ),
}


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
        hunt(machine)
    print(repr(caught.value)[:300])
