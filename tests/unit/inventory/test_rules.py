"""The state table of a reservation: every state, event and sequence of arrival, and the effect on the stock."""

from decimal import Decimal
from itertools import permutations, product
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.base import MAX_STOCK
from contracts.errors import ValidationFailed
from contracts.inventory import Shortage, StockCommitted, StockFailed, StockIsReserved, StockReleased, StockReserved
from contracts.orders import CancelReason, OrderCancelled, OrderConfirmed, OrderCreated, OrderLine
from inventory import rules
from inventory.rules import Balance, Change, Status

ORDER, USER, A, B = (UUID(int=number) for number in range(1, 5))


def line(product_id, quantity):
    return OrderLine(product_id=product_id, product_sku="SKU", quantity=quantity, price_snapshot=Decimal(1))


def created(*lines, order_id=ORDER):
    items = tuple(line(*each) for each in lines or ((A, 2),))
    return OrderCreated(order_id=order_id, user_id=USER, total_amount=Decimal(10), currency="TRY", items=items)


def confirmed(order_id=ORDER):
    return OrderConfirmed(order_id=order_id, user_id=USER, total_amount=Decimal(10), currency="TRY")


def cancelled(order_id=ORDER):
    return OrderCancelled(order_id=order_id, user_id=USER, reason=CancelReason.USER)


EVENTS = {"created": created(), "confirmed": confirmed(), "cancelled": cancelled()}
LEADS_TO = {
    (None, "created"): (Status.RESERVED, Change(0, +2), StockReserved(order_id=ORDER)),
    (None, "cancelled"): (Status.CANCELLED_BEFORE, Change(0, 0), None),
    (Status.RESERVED, "confirmed"): (Status.COMMITTED, Change(-2, -2), StockCommitted(order_id=ORDER)),
    (Status.RESERVED, "cancelled"): (Status.RELEASED, Change(0, -2), StockReleased(order_id=ORDER)),
    (Status.COMMITTED, "cancelled"): (Status.RETURNED, Change(+2, 0), StockReleased(order_id=ORDER, returned=True)),
}
NOTHING = [pair for pair in product((None, *Status), EVENTS) if pair not in LEADS_TO and pair != (None, "confirmed")]


@pytest.mark.parametrize(("status", "event"), LEADS_TO)
def test_the_transitions_of_the_table(status, event):
    becomes, change, said = LEADS_TO[status, event]
    decision = rules.decide(status, EVENTS[event], {A: 2}, {A: Balance(10, 4)})
    assert decision == rules.Decision(becomes, {A: change} if change != Change() else {}, said)


@pytest.mark.parametrize(("status", "event"), NOTHING)
def test_all_other_pairs_change_nothing(status, event):
    assert rules.decide(status, EVENTS[event], {A: 2}, {A: Balance(10, 4)}) is None


def test_a_confirmation_without_a_reservation_is_an_error():
    with pytest.raises(rules.ReservationMissing):
        rules.decide(None, confirmed(), {}, {})


class TestReserving:
    def test_all_lines_are_reserved_or_none(self):
        decision = rules.decide(None, created(), {A: 1, B: 5}, {A: Balance(10), B: Balance(7, 3)})
        assert (decision.status, decision.changes) == (Status.FAILED, {})
        assert decision.event == StockFailed(
            order_id=ORDER,
            reason="not enough stock of 1 of 2 products",
            shortages=(Shortage(product_id=B, requested=5, available=4),),
        )

    def test_the_last_unit_can_be_reserved(self):
        assert rules.decide(None, created(), {A: 3}, {A: Balance(5, 2)}).status is Status.RESERVED

    def test_a_product_without_a_stock_record_counts_as_none(self):
        decision = rules.decide(None, created(), {A: 1}, {})
        assert decision.event.shortages == (Shortage(product_id=A, requested=1, available=0),)

    def test_quantities_of_one_product_are_added(self):
        assert rules.merge(created((A, 2), (B, 1), (A, 3)).items) == {A: 5, B: 1}


class TestTheLevel:
    @pytest.mark.parametrize(("quantity", "delta"), [(7, 2), (5, 0), (3, -2)])
    def test_can_be_set_down_to_what_is_reserved(self, quantity, delta):
        assert rules.set_level(Balance(5, 3), quantity) == Change(on_hand=delta)

    @pytest.mark.parametrize("quantity", [2, 0])
    def test_cannot_be_set_below_what_is_reserved(self, quantity):
        with pytest.raises(StockIsReserved, match=f"{quantity} would be on hand, less than the 3 that are reserved"):
            rules.set_level(Balance(5, 3), quantity)

    def test_cannot_go_below_zero(self):
        with pytest.raises(StockIsReserved, match="There are 5 on hand"):
            rules.adjust(Balance(5), -6)
        assert rules.adjust(Balance(5), -5) == Change(on_hand=-5)

    def test_has_an_upper_bound(self):
        assert rules.adjust(Balance(1), MAX_STOCK - 1) == Change(on_hand=MAX_STOCK - 1)
        with pytest.raises(ValidationFailed, match="delta"):
            rules.adjust(Balance(1), MAX_STOCK)

    def test_above_the_bound_every_step_towards_it_is_possible(self):
        """A cancelled order that came back can have left more than the bound."""
        above = Balance(MAX_STOCK + 10, 3)
        for delta in (-1, -10, -11, -MAX_STOCK):
            assert rules.adjust(above, delta) == Change(on_hand=delta)
        assert above.plus(rules.set_level(above, MAX_STOCK)).on_hand == MAX_STOCK
        with pytest.raises(ValidationFailed, match="delta"):
            rules.adjust(above, 1)


class Shop:
    """Applies decisions to dicts, as the use case does to tables."""

    def __init__(self, stock):
        self.first = self.stock = stock
        self.statuses, self.lines, self.said = {}, {}, []

    def handle(self, event):
        order_id = event.order_id
        asked = rules.merge(event.items) if isinstance(event, OrderCreated) else self.lines.get(order_id, {})
        decision = rules.decide(self.statuses.get(order_id), event, asked, self.stock)
        if decision is None:
            return
        self.statuses[order_id] = decision.status
        if decision.status is Status.RESERVED:
            self.lines[order_id] = asked
        changed = {key: self.stock[key].plus(change) for key, change in decision.changes.items()}
        self.stock = self.stock | changed
        self.said += [decision.event] if decision.event else []
        self.check()

    def check(self):
        for product_id, balance in self.stock.items():
            held = self.units(product_id, Status.RESERVED)
            assert 0 <= balance.reserved <= balance.on_hand
            assert balance.reserved == held
            assert balance.on_hand == self.first[product_id].on_hand - self.units(product_id, Status.COMMITTED)

    def units(self, product_id, status):
        return sum(
            lines.get(product_id, 0) for order_id, lines in self.lines.items() if self.statuses[order_id] is status
        )


@pytest.mark.parametrize("quantity", [2, 99], ids=["enough", "short"])
@pytest.mark.parametrize(
    "arrival",
    [
        order
        for length in range(1, 6)
        for order in sorted(set(permutations(["created", "confirmed", "cancelled", "created", "cancelled"], length)))
        if order[0] != "confirmed"  # a confirmation follows the reservation, so it cannot come first
    ],
    ids="-".join,
)
def test_stock_is_consistent_after_every_sequence_of_arrival(arrival, quantity):
    events = EVENTS | {"created": created((A, quantity))}
    shop = Shop({A: Balance(10)})
    for event in arrival:
        shop.handle(events[event])
    kinds = [type(event) for event in shop.said]
    assert len(kinds) == len(set(kinds)), "an event was published twice"
    if "cancelled" in arrival and "created" in arrival:
        assert shop.stock == {A: Balance(10)}, "a cancelled order holds stock"
    if arrival[0] == "cancelled":
        assert shop.said == []


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_stock_is_consistent_after_many_orders_of_two_products(data):
    orders = [uuid4() for _ in range(4)]
    lines = st.lists(st.tuples(st.sampled_from([A, B]), st.integers(1, 6)), min_size=1, max_size=3)
    asked = {order: created(*data.draw(lines), order_id=order) for order in orders}
    shop = Shop({A: Balance(data.draw(st.integers(0, 15))), B: Balance(10)})
    for order, kind in data.draw(
        st.lists(st.tuples(st.sampled_from(orders), st.sampled_from(list(EVENTS))), max_size=30)
    ):
        if kind == "confirmed" and order not in shop.statuses:
            continue
        shop.handle({"created": asked[order], "confirmed": confirmed(order), "cancelled": cancelled(order)}[kind])
