"""Inventory's use cases on a real database: any sequence, batches, repetitions, and crashes before the commit.

After each step the tables and the published events must match a much simpler model of the contract.
"""

from collections import Counter
from decimal import Decimal
from types import SimpleNamespace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from contracts.base import OPERATOR, StoredCause
from contracts.ids import new_id
from contracts.inventory import (
    AdjustStock,
    SetStock,
    SetStockLevel,
    SetThreshold,
    StockIsReserved,
    StockLow,
    StockNotFound,
)
from contracts.orders import CancelReason, OrderCancelled, OrderConfirmed, OrderCreated, OrderLine
from inventory import queries, rules, use_cases
from inventory.rules import ReservationMissing
from tests.service.stateful import Transactions, hunt, received, run_until_seen

USER = new_id()
ABSENT = object()
CAUSE = StoredCause(new_id(), "request", "trace")
WITH_STOCK, PRODUCTS, ORDERS = 2, 3, 4
# The lines of each order: (product, units) as the client sent them. A product can be on two lines.
lines = st.lists(st.tuples(st.integers(0, PRODUCTS - 1), st.integers(1, 4)), min_size=1, max_size=4)
batches = st.lists(st.integers(0, ORDERS - 1), min_size=1, max_size=6)
crashes = st.sampled_from([False, False, False, True])
kinds = st.sampled_from(["created", "confirmed", "cancelled"])
news = st.lists(st.tuples(kinds, st.integers(0, ORDERS - 1)), min_size=2, max_size=8)
products = st.integers(0, PRODUCTS - 1)


class Shop:
    """A minimal model of stock and reservations as the contract describes them."""

    def __init__(self):
        self.stock = {}
        self.people = Counter()
        self.held = {}
        self.status = {}
        self.published = []
        self.thresholds, self.low, self.announced = {}, set(), []

    def notice(self, products):
        """After a transaction: announce the products whose stock has become low."""
        for product in products:
            on_hand, reserved = self.stock.get(product, [0, 0])
            threshold = self.thresholds.get(product)
            if threshold is None or on_hand - reserved >= threshold:
                self.low.discard(product)
            elif product not in self.low:
                self.low.add(product)
                self.announced.append((product, on_hand - reserved, threshold))

    def copy(self):
        other = Shop()
        other.thresholds, other.low, other.announced = dict(self.thresholds), set(self.low), list(self.announced)
        other.stock = {product: list(levels) for product, levels in self.stock.items()}
        other.people, other.held = Counter(self.people), dict(self.held)
        other.status, other.published = dict(self.status), list(self.published)
        return other

    def created(self, order, asked):
        if order in self.status:
            return
        units = Counter()
        for product, quantity in asked:
            units[product] += quantity
        if all(self.stock.get(p, [0, 0])[0] - self.stock.get(p, [0, 0])[1] >= n for p, n in units.items()):
            for product, n in units.items():
                self.stock[product][1] += n
            self.status[order], self.held[order] = "RESERVED", units
            self.published.append(("inventory.stock_reserved", order))
        else:
            self.status[order] = "FAILED"
            self.published.append(("inventory.stock_failed", order))

    def confirmed(self, order, _):
        if self.status.get(order) != "RESERVED":
            return
        for product, n in self.held[order].items():
            self.stock[product][0] -= n
            self.stock[product][1] -= n
        self.status[order] = "COMMITTED"
        self.published.append(("inventory.stock_committed", order))

    def cancelled(self, order, _):
        status = self.status.get(order)
        if status is None:
            self.status[order] = "CANCELLED_BEFORE"
        elif status in {"RESERVED", "COMMITTED"}:
            for product, n in self.held[order].items():
                self.stock[product][1 if status == "RESERVED" else 0] += -n if status == "RESERVED" else n
            self.status[order] = "RELEASED" if status == "RESERVED" else "RETURNED"
            self.published.append(("inventory.stock_released", order))


STATUSES = {"RESERVED", "FAILED", "COMMITTED", "RELEASED", "RETURNED", "CANCELLED_BEFORE"}


class Inventory(RuleBasedStateMachine):
    """Runs the use cases and the model side by side."""

    transactions = None
    seen = set()  # noqa: RUF012 - the statuses seen in all runs

    @initialize(levels=st.lists(st.integers(2, 9), min_size=WITH_STOCK, max_size=WITH_STOCK))
    def open_shop(self, levels):
        self.products = [new_id() for _ in range(PRODUCTS)]
        self.orders = [new_id() for _ in range(ORDERS)]
        self.asked, self.shop, self.published = {}, Shop(), []
        for product, quantity in enumerate(levels):
            self.set_stock(product, quantity, crash=False)

    # Events

    @rule(batch=batches, asks=st.lists(lines, min_size=ORDERS, max_size=ORDERS), crash=crashes)
    def orders_are_created(self, batch, asks, crash):
        for order in batch:
            self.asked.setdefault(order, asks[order])
        self.handle([("created", order) for order in batch], crash)

    @precondition(lambda self: self.shop.status)
    @rule(batch=batches, crash=crashes)
    def orders_are_confirmed(self, batch, crash):
        known = [order for order in batch if order in self.shop.status]
        if known:
            self.handle([("confirmed", order) for order in known], crash)

    @rule(batch=batches)
    def an_unknown_order_is_confirmed(self, batch):
        if all(order in self.shop.status for order in batch):
            return
        with pytest.raises(ReservationMissing), self.transactions.open(self.published) as (session, publish):
            use_cases.apply_order_events(session, [received(self.confirmed(order)) for order in batch], publish)

    @rule(order=st.integers(0, ORDERS - 1), product=products)
    def an_order_is_reserved(self, order, product):
        """The usual sequence, from which other rules continue."""
        self.orders_are_created([order], [[(product, 1)]] * ORDERS, crash=False)

    @precondition(lambda self: self.shop.held)
    @rule(data=st.data())
    def a_reserved_order_is_confirmed(self, data):
        self.orders_are_confirmed([data.draw(st.sampled_from(sorted(self.shop.held)), label="order")], crash=False)

    @rule(batch=batches, crash=crashes)
    def orders_are_cancelled(self, batch, crash):
        self.handle([("cancelled", order) for order in batch], crash)

    @rule(news=news, asks=st.lists(lines, min_size=ORDERS, max_size=ORDERS), crash=crashes)
    def all_kinds_come_in_one_batch(self, news, asks, crash):
        known, batch = set(self.shop.status), []
        for what, order in news:
            if what == "confirmed" and order not in known:
                continue
            known.add(order)
            self.asked.setdefault(order, asks[order])
            batch.append((what, order))
        if batch:
            self.handle(batch, crash)

    def handle(self, news, crash):
        with self.transactions.open(self.published, crash=crash) as (session, publish):
            events = [received(getattr(self, what)(order)) for what, order in news]
            use_cases.apply_order_events(session, events, publish)
        if not crash:
            for what, order in news:
                getattr(self.shop, what)(order, self.asked.get(order))
            self.shop.notice(self.shop.stock)

    def created(self, order):
        items = tuple(
            OrderLine(
                product_id=self.products[product], product_sku="SKU", quantity=quantity, price_snapshot=Decimal(1)
            )
            for product, quantity in self.asked[order]
        )
        return OrderCreated(
            order_id=self.orders[order], user_id=USER, total_amount=Decimal(1), currency="TRY", items=items
        )

    def confirmed(self, order):
        return OrderConfirmed(order_id=self.orders[order], user_id=USER, total_amount=Decimal(1), currency="TRY")

    def cancelled(self, order):
        return OrderCancelled(order_id=self.orders[order], user_id=USER, reason=CancelReason.USER)

    # Requests of administrators

    @rule(product=products, quantity=st.integers(0, 9), crash=crashes)
    def set_stock(self, product, quantity, crash):
        request = SetStock(product_id=self.products[product], quantity=quantity)
        known = [SimpleNamespace(id=self.products[product], sku="SKU", version=1)]
        levels = self.shop.stock.get(product, [0, 0])
        self.change(
            product,
            quantity - levels[0],
            crash,
            lambda session, call: use_cases.set_stock(session, request, OPERATOR, call, known),
        )

    @rule(product=products, quantity=st.integers(0, 9), crash=crashes)
    def set_level(self, product, quantity, crash):
        request = SetStockLevel(quantity=quantity)
        change = quantity - self.shop.stock.get(product, [0, 0])[0]
        self.change(
            product,
            change,
            crash,
            lambda session, call: use_cases.change_stock_level(
                session, self.products[product], request, OPERATOR, call
            ),
            exists=True,
        )

    @rule(product=products, delta=st.integers(-4, 4).filter(bool), crash=crashes)
    def adjust(self, product, delta, crash):
        request = AdjustStock(delta=delta, reason="counted")
        self.change(
            product,
            delta,
            crash,
            lambda session, call: use_cases.adjust_stock(session, self.products[product], request, OPERATOR, call),
            exists=True,
        )

    @rule(product=products, low_stock=st.sampled_from([None, 0, 1, 3, 5, 8]), crash=crashes)
    def set_threshold(self, product, low_stock, crash):
        request = SetThreshold(low_stock=low_stock)

        def call(session, call):
            use_cases.set_threshold(session, self.products[product], request, OPERATOR, call)

        self.change(product, 0, crash, call, exists=True, threshold=low_stock)

    def change(self, product, delta, crash, call, *, exists=False, threshold=ABSENT):
        after = self.shop.copy()
        if threshold is not ABSENT:
            after.thresholds[product] = threshold
        after.stock.setdefault(product, [0, 0])[0] += delta
        after.people[product] += delta
        refused = None
        if exists and product not in self.shop.stock:
            refused = StockNotFound
        elif after.stock[product][0] < after.stock[product][1]:
            refused = StockIsReserved
        if refused:
            with pytest.raises(refused), self.transactions.open(self.published) as (session, publish):
                call(session, use_cases.Call(CAUSE, publish))
            return
        with self.transactions.open(self.published, crash=crash) as (session, publish):
            call(session, use_cases.Call(CAUSE, publish))
        if not crash:
            after.notice([product])
            self.shop = after

    # Invariants after each step

    @invariant()
    def stock_matches_the_model(self):
        rows = self.read("SELECT product_id, on_hand, reserved FROM stock WHERE product_id = ANY(:products)")
        assert {
            self.products.index(product): [on_hand, reserved] for product, on_hand, reserved in rows
        } == self.shop.stock
        assert all(0 <= reserved <= on_hand for on_hand, reserved in self.shop.stock.values())

    @invariant()
    def the_ledger_matches_the_stock(self):
        rows = self.read(
            """
            SELECT product_id, sum(on_hand_delta), sum(reserved_delta),
                   coalesce(sum(on_hand_delta) FILTER (WHERE order_id IS NULL), 0),
                   bool_and(on_hand = on_hand_so_far AND reserved = reserved_so_far)
            FROM (SELECT *, sum(on_hand_delta) OVER ledger AS on_hand_so_far,
                            sum(reserved_delta) OVER ledger AS reserved_so_far
                  FROM movements WHERE product_id = ANY(:products)
                  WINDOW ledger AS (PARTITION BY product_id ORDER BY entry)) AS running
            GROUP BY product_id
            """
        )
        ledger = {self.products.index(product): sums for product, *sums in rows}
        assert ledger == {
            product: [on_hand, reserved, self.shop.people[product], True]
            for product, (on_hand, reserved) in self.shop.stock.items()
        }

    @invariant()
    def reservations_match_the_model(self):
        rows = self.read("SELECT order_id, status FROM reservations WHERE order_id = ANY(:orders)")
        assert {self.orders.index(order): status for order, status in rows} == self.shop.status
        self.seen.update(self.shop.status.values())
        held = self.read("SELECT order_id, product_id, quantity FROM reservation_lines WHERE order_id = ANY(:orders)")
        assert {(self.orders.index(order), self.products.index(product), units) for order, product, units in held} == {
            (order, product, units) for order, lines in self.shop.held.items() for product, units in lines.items()
        }

    @invariant()
    def events_are_published_once_and_in_order(self):
        about_orders = [event for event in self.published if not isinstance(event, StockLow)]
        assert [(event.event_type, self.orders.index(event.order_id)) for event in about_orders] == self.shop.published

    @invariant()
    def low_stock_is_announced_once(self):
        low = [event for event in self.published if isinstance(event, StockLow)]
        found = [(self.products.index(event.product_id), event.available, event.threshold) for event in low]
        assert sorted(found) == sorted(self.shop.announced)
        assert {event.product_sku for event in low} <= {"SKU"}
        rows = self.read("SELECT product_id, low_stock, is_low FROM stock WHERE product_id = ANY(:products)")
        stored = {self.products.index(product): (low_stock, is_low) for product, low_stock, is_low in rows}
        assert stored == {
            product: (self.shop.thresholds.get(product), product in self.shop.low) for product in self.shop.stock
        }

    def read(self, statement):
        return self.transactions.read(statement, products=self.products, orders=self.orders)


MUTANTS = {
    "only the last of two lines of a product counts": (
        rules,
        "merge",
        lambda items: {item.product_id: item.quantity for item in items},
    ),
    "a second event of the batch for the same order is handled like the first": (
        use_cases.rules,
        "decide",
        lambda status, event, lines, stock: _DECIDE(
            rules.Status.RESERVED if isinstance(event, OrderCancelled) and status == "RELEASED" else status,
            event,
            lines,
            stock,
        ),
    ),
    "the reserved lines are not read": (queries, "lines_of", lambda *_: {}),
    "the ledger is not written": (use_cases.Ledger, "write", lambda *_: None),
    "each change below the threshold is announced": (
        queries,
        "lock_stock",
        lambda session, ids: {
            product: each._replace(threshold=rules.Threshold(each.threshold.low_stock))
            for product, each in _LOCK_STOCK(session, ids).items()
        },
    ),
    "low stock is not announced": (use_cases.Ledger, "_announce", lambda *_: None),
    "the threshold itself counts as low": (
        rules.Threshold,
        "is_crossed",
        lambda self, balance: self.low_stock is not None and balance.available <= self.low_stock,
    ),
    "a new level is used as a difference": (
        rules,
        "set_level",
        rules.adjust,
    ),
}
_DECIDE, _LOCK_STOCK = rules.decide, queries.lock_stock


@pytest.fixture
def machine(servers):
    Inventory.transactions = Transactions("inventory")
    Inventory.seen = set()
    yield Inventory
    Inventory.transactions.close()


def test_inventory_does_what_the_contract_says(machine):
    run_until_seen(machine, STATUSES)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_is_caught(machine, mutant, monkeypatch):
    monkeypatch.setattr(*MUTANTS[mutant])
    with pytest.raises(Exception) as caught:
        hunt(machine)
    print(repr(caught.value)[:300])
