"""What must hold in every state, and what in every state in which nothing is left to do: contract section 4.

Written from the contract alone: none of the rules under test is asked here, except is_stuck, which is itself held to
these promises. All of it follows from an order and the stock alone, so each combination is judged once.
"""

from contracts.orders import OrderStatus
from orders import saga as saga_rules
from qa.model import vocabulary as words
from qa.model.records import Broken, Order
from qa.model.vocabulary import was

GOOD = {OrderStatus.CONFIRMED, OrderStatus.SHIPPED, OrderStatus.DELIVERED}
NEXT = {
    OrderStatus.CREATED: {OrderStatus.CONFIRMED, OrderStatus.CANCELLED},
    OrderStatus.CONFIRMED: {OrderStatus.SHIPPED, OrderStatus.CANCELLED},
    OrderStatus.SHIPPED: {OrderStatus.DELIVERED},
}
FORWARD = {
    "PENDING": 0,
    **dict.fromkeys(("RESERVED", "AUTHORIZED"), 1),
    **dict.fromkeys(("COMMITTED", "CAPTURED"), 2),
    **dict.fromkeys(("FAILED", "RELEASED", "RETURNED", "VOIDED", "REFUNDED"), 3),
}
# What a reservation or a payment has announced in each of its states, and nothing else.
SAYS_OF_STOCK = {
    "RESERVED": {"inventory.stock_reserved"},
    "FAILED": {"inventory.stock_failed"},
    "COMMITTED": {"inventory.stock_reserved", "inventory.stock_committed"},
    "RELEASED": {"inventory.stock_reserved", "inventory.stock_released"},
    "RETURNED": {"inventory.stock_reserved", "inventory.stock_committed", "inventory.stock_released, returned"},
}
SAYS_OF_PAYMENT = (
    {"payment.failed"},
    {"payment.authorized"},
    {"payment.authorized", "payment.captured"},
    {"payment.authorized", "payment.voided"},
    {"payment.voided"},
    {"payment.authorized", "payment.captured", "payment.refunded"},
)
PAYMENT_SAYS = {
    "FAILED": SAYS_OF_PAYMENT[:1],
    "AUTHORIZED": SAYS_OF_PAYMENT[1:2],
    "CAPTURED": SAYS_OF_PAYMENT[2:3],
    "VOIDED": SAYS_OF_PAYMENT[3:5],
    "REFUNDED": SAYS_OF_PAYMENT[5:],
}
STOCK_IS_FREE = {"FAILED": "FAILED", "RELEASED": "RELEASED", "RETURNED": "RETURNED", "CANCELLED_BEFORE": "PENDING"}
MONEY_IS_FREE = {"FAILED": "FAILED", "VOIDED": "VOIDED", "REFUNDED": "REFUNDED", "CANCELLED_BEFORE": "PENDING"}
MONEY_AFTER = {
    "FAILED": words.REFUSED,
    "VOIDED": words.HELD | words.LET_GO,
    "REFUNDED": words.HELD | words.TAKEN | words.GIVEN_BACK,
    "CANCELLED_BEFORE": 0,
}


class Invariants:
    """Judges the states of one world; raises Broken."""

    def __init__(self, world):
        self._world = world
        self._judged_orders, self._judged_stock, self._judged_steps, self._resting = set(), set(), set(), {}

    def always(self, state):
        """Judge a state."""
        *orders, stock, _ = state
        for number, order in enumerate(orders):
            if (number, order) not in self._judged_orders:
                self._order(number, self._look(order))
                self._judged_orders.add((number, order))
        key = (*(self._world.orders.values[order][1] for order in orders), stock)
        if key not in self._judged_stock:
            self._stock(orders, stock)
            self._judged_stock.add(key)

    def step(self, before, after):
        """Judge what a step did to the orders."""
        for old, new in zip(before[:-2], after[:-2], strict=True):
            if old != new and (old, new) not in self._judged_steps:
                self._forward(self._look(old), self._look(new))
                self._judged_steps.add((old, new))

    def is_at_rest(self, state):
        """Tell whether nothing is left: no open transaction, no outbox row, no delivery due, no answer awaited."""
        *orders, _, opened = state
        return not self._world.open.values[opened] and all(self._rests(order) for order in orders)

    def at_rest(self, state):
        """Judge a state at rest."""
        for number, order in enumerate(state[:-2]):
            if not self._world.scenario.orders[number].foreign:
                self._settled(self._look(order))

    def can_move_on(self, state):
        """Tell whether something that brings all this nearer to rest can happen; no transaction is open."""
        *orders, stock, _ = state
        if all(asked.foreign for asked in self._world.scenario.orders):
            return True  # a stranger's events promise nothing: what cannot be handled is dead-lettered
        return any(self._world.helps(number, order, stock) for number, order in enumerate(orders))

    def _look(self, order):
        it, world = Order(*self._world.orders.values[order]), self._world
        return it._replace(
            saga=world.sagas.values[it.saga],
            reservation=world.reservations.values[it.reservation],
            payment=world.payments.values[it.payment],
        )

    def _rests(self, order):
        if order not in self._resting:
            it = self._look(order)
            self._resting[order] = (it.payment is None or it.payment[0] != "PENDING") and not any(
                (it.bits & written and not it.bits & deleted)
                or (it.bits & on_bus and any(not it.bits & handled for _, handled in words.CONSUMERS[message]))
                for message, (written, on_bus, deleted) in enumerate(words.STAGES)
            )
        return self._resting[order]

    # Always

    def _order(self, number, it):
        status, held = it.reservation or (None, ())
        said = {_name(message) for message, (written, _, _) in enumerate(words.STAGES) if it.bits & written}
        lines = _merged(self._world.scenario.orders[number].lines)
        _hold(
            "all lines or none are reserved",
            held == (lines if status in {"RESERVED", "COMMITTED", "RELEASED", "RETURNED"} else ()),
            f"{status} with {held}, asked were {lines}",
        )
        of_stock = {name for name in said if name.startswith("inventory.")}
        _hold(
            "what happened to the stock is announced, and nothing else",
            of_stock == SAYS_OF_STOCK.get(status, set()),
            f"{status}, announced: {of_stock}",
        )
        payment = it.payment and it.payment[0]
        of_money = {name for name in said if name.startswith("payment.")}
        _hold(
            "what happened to the money is announced, and nothing else",
            of_money in PAYMENT_SAYS.get(payment, (set(),)),
            f"{payment}, announced: {of_money}",
        )
        _hold(
            "no money is taken and let go",
            not (it.money & words.TAKEN and it.money & words.LET_GO),
            "captured and voided",
        )
        if it.saga:
            self._decision(it, said)

    def _decision(self, it, said):
        order = it.saga
        _hold(
            "an order announces what it is",
            ("order.confirmed" in said or order.status not in GOOD)
            and ("order.cancelled" in said) == (order.status is OrderStatus.CANCELLED)
            and (order.status is not OrderStatus.CREATED or "order.confirmed" not in said),
            f"{order.status}, announced: {said}",
        )
        _hold(
            "an order is confirmed by both answers",
            "order.confirmed" not in said or {"inventory.stock_reserved", "payment.authorized"} <= said,
            f"order.confirmed after {said}",
        )
        reasons = {"OUT_OF_STOCK": "inventory.stock_failed", "PAYMENT_FAILED": "payment.failed"}
        _hold(
            "a cancellation has its reason",
            (order.cancel_reason is not None) == (order.status is OrderStatus.CANCELLED)
            and reasons.get(order.cancel_reason, "order.created") in said
            and (order.cancel_reason != "TIMEOUT" or "order.confirmed" not in said),
            f"{order.status} because of {order.cancel_reason}, announced: {said}",
        )

    def _stock(self, orders, stock):
        levels, made = self._world.stocks.values[stock]
        scenario = self._world.scenario
        for product, level in enumerate(levels):
            if level is None:
                continue
            on_hand, reserved = level
            _hold("0 <= reserved <= on hand", 0 <= reserved <= on_hand, f"{on_hand} on hand, {reserved} reserved")
            people = sum(
                delta
                for which, (other, delta) in enumerate(scenario.adjustments)
                if other == product and made >> which & 1
            )
            _hold(
                "on hand = first + adjustments - (committed - returned)",
                on_hand == scenario.stock[product] + people - self._sum(orders, product, "COMMITTED"),
                f"{on_hand} on hand, {scenario.stock[product]} at first, adjusted by {people}, "
                f"{self._sum(orders, product, 'COMMITTED')} committed",
            )
            _hold(
                "reserved = the sum of the reservations",
                reserved == self._sum(orders, product, "RESERVED"),
                f"{reserved} reserved, the reservations have {self._sum(orders, product, 'RESERVED')}",
            )

    def _sum(self, orders, product, status):
        reservations = (self._look(order).reservation or (None, ()) for order in orders)
        return sum(units for its, held in reservations if its == status for which, units in held if which == product)

    def _forward(self, old, new):
        if old.saga is not None and old.saga != new.saga:
            _hold(
                "an order takes only steps that exist, and never leaves CANCELLED or DELIVERED",
                old.saga.status is new.saga.status or new.saga.status in NEXT.get(old.saga.status, ()),
                f"{old.saga.status} became {new.saga.status}",
            )
            for part in ("stock", "payment"):
                here, there = getattr(old.saga, part), getattr(new.saga, part)
                _hold(
                    "the two statuses of an order only move forward",
                    here == there or FORWARD[here] < FORWARD[there],
                    f"{part} status {here} became {there}",
                )
        _hold(
            "nothing that was done is undone",
            not old.bits & ~new.bits and (not _waits(new) or _waits(old) or old.payment is None),
            f"payment {old.payment} became {new.payment}",
        )
        if not was("order.confirmed", old.bits) and was("order.confirmed", new.bits):
            _hold("a confirmation precedes a cancellation", not was("order.cancelled", old.bits), "it came after")

    # At rest

    def _settled(self, it):
        self._end(it)
        _hold("no settled order counts as stuck", not saga_rules.is_stuck(it.saga), f"{it.saga}")

    def _end(self, it):
        order, reservation, payment = it.saga, it.reservation and it.reservation[0], it.payment and it.payment[0]
        _hold("every accepted order is decided", order.status is not OrderStatus.CREATED, "still CREATED")
        if order.status in GOOD:
            _hold("a good order has its stock, COMMITTED", reservation == "COMMITTED", f"{order.status}, {reservation}")
            _hold("a good order is paid, CAPTURED", payment == "CAPTURED", f"{order.status}, {payment}")
            _hold("a good order's money is taken", it.money == words.HELD | words.TAKEN, f"provider: {it.money:b}")
            _hold("an order knows its end", (order.stock, order.payment) == (reservation, payment), f"{order}")
            return
        _hold("a cancelled order holds no stock", reservation in STOCK_IS_FREE, f"its reservation is {reservation}")
        _hold("a cancelled order holds no money", payment in MONEY_IS_FREE, f"its payment is {payment}")
        _hold(
            "a cancelled order's money is free", it.money == MONEY_AFTER[payment], f"{payment}, provider: {it.money:b}"
        )
        _hold(
            "an order knows its end",
            (order.stock, order.payment) == (STOCK_IS_FREE[reservation], MONEY_IS_FREE[payment]),
            f"{order}, {reservation}, {payment}",
        )


def _hold(promise, kept, seen):
    if not kept:
        raise Broken(promise, seen)


def _waits(it):
    return it.payment is not None and it.payment[0] == "PENDING"


def _name(message):
    event, returned = words.MESSAGES[message]
    return event + ", returned" * returned


def _merged(lines):
    units = {}
    for product, quantity in lines:
        units[product] = units.get(product, 0) + quantity
    return tuple(sorted(units.items()))
