"""The invariants of every state, and those of states at rest: contract section 4.

They are written from the contract and do not call the rules under test, except is_unsettled, which is checked here.
They depend only on an order and the stock, so each combination is checked once.
"""

from contracts.orders import OrderStatus
from orders import saga as saga_rules
from qa.model import services
from qa.model import vocabulary as words
from qa.model.records import Broken, Order
from qa.model.vocabulary import was_published

CONFIRMED_OR_LATER = {OrderStatus.CONFIRMED, OrderStatus.SHIPPED, OrderStatus.DELIVERED}
NEXT = {
    OrderStatus.CREATED: {OrderStatus.CONFIRMED, OrderStatus.CANCELLED},
    OrderStatus.CONFIRMED: {OrderStatus.SHIPPED, OrderStatus.CANCELLED},
    OrderStatus.SHIPPED: {OrderStatus.DELIVERED},
}
FORWARD = {
    "PENDING": 0,
    **dict.fromkeys(("RESERVED", "AUTHORIZED"), 1),
    **dict.fromkeys(("COMMITTED", "CAPTURED"), 2),
    "PARTIALLY_REFUNDED": 3,
    **dict.fromkeys(("FAILED", "RELEASED", "RETURNED", "VOIDED", "REFUNDED"), 4),
}
# The events that a reservation or a payment has published in each of its statuses.
STOCK_EVENTS = {
    "RESERVED": {"inventory.stock_reserved"},
    "FAILED": {"inventory.stock_failed"},
    "COMMITTED": {"inventory.stock_reserved", "inventory.stock_committed"},
    "RELEASED": {"inventory.stock_reserved", "inventory.stock_released"},
    "RETURNED": {"inventory.stock_reserved", "inventory.stock_committed", "inventory.stock_released, returned"},
}
PAYMENT_EVENT_SETS = (
    {"payment.failed"},
    {"payment.authorized"},
    {"payment.authorized", "payment.captured"},
    {"payment.authorized", "payment.voided"},
    {"payment.voided"},
    {"payment.authorized", "payment.captured", "payment.refunded"},
)
PAYMENT_EVENTS = {
    "FAILED": PAYMENT_EVENT_SETS[:1],
    "AUTHORIZED": PAYMENT_EVENT_SETS[1:2],
    "CAPTURED": PAYMENT_EVENT_SETS[2:3],
    "PARTIALLY_REFUNDED": PAYMENT_EVENT_SETS[2:3],
    "VOIDED": PAYMENT_EVENT_SETS[3:5],
    "REFUNDED": PAYMENT_EVENT_SETS[5:],
}
STOCK_IS_FREE = {"FAILED": "FAILED", "RELEASED": "RELEASED", "RETURNED": "RETURNED", "CANCELLED_BEFORE": "PENDING"}
MONEY_IS_FREE = {"FAILED": "FAILED", "VOIDED": "VOIDED", "REFUNDED": "REFUNDED", "CANCELLED_BEFORE": "PENDING"}
# What the provider may have done. A payment can be voided before its authorisation was asked for, or declined.
MONEY_AFTER = {
    "FAILED": {words.DECLINED, words.DECLINED | words.VOIDED},
    "VOIDED": {words.VOIDED, words.AUTHORIZED | words.VOIDED, words.DECLINED | words.VOIDED},
    "REFUNDED": {words.AUTHORIZED | words.CAPTURED},
    "CANCELLED_BEFORE": {0},
}


PARTIAL = "payment.partially_refunded"


class Invariants:
    """Checks the states of one world; raises Broken."""

    def __init__(self, world):
        self._world = world
        self._checked_orders, self._checked_stock, self._checked_steps, self._orders_at_rest = set(), set(), set(), {}

    def always(self, state):
        """Check the invariants of every state."""
        *orders, stock, _ = state
        for number, order in enumerate(orders):
            if (number, order) not in self._checked_orders:
                self._order(number, self._resolve(order))
                self._checked_orders.add((number, order))
        key = (*(self._world.orders.values[order][1] for order in orders), stock)
        if key not in self._checked_stock:
            self._stock(orders, stock)
            self._checked_stock.add(key)

    def step(self, before, after):
        """Check the changes of the orders by a step."""
        for old, new in zip(before[:-2], after[:-2], strict=True):
            if old != new and (old, new) not in self._checked_steps:
                self._forward(self._resolve(old), self._resolve(new))
                self._checked_steps.add((old, new))

    def is_at_rest(self, state):
        """Whether nothing is left to do: no open transaction, outbox row, due delivery, or call of the provider."""
        *orders, _, opened = state
        return not self._world.open.values[opened] and all(self._order_is_at_rest(order) for order in orders)

    def at_rest(self, state):
        """Check the invariants of a state at rest."""
        for number, order in enumerate(state[:-2]):
            if not self._world.scenario.orders[number].foreign:
                self._settled(self._resolve(order))

    def can_progress(self, state):
        """Whether a step that makes progress is possible. No transaction is open."""
        *orders, stock, _ = state
        if all(spec.foreign for spec in self._world.scenario.orders):
            return True  # foreign events need no progress: a message that cannot be handled is dead-lettered
        return any(self._world.can_progress(number, order, stock) for number, order in enumerate(orders))

    def _resolve(self, order):
        it, world = Order(*self._world.orders.values[order]), self._world
        return it._replace(
            saga=world.sagas.values[it.saga],
            reservation=world.reservations.values[it.reservation],
            payment=world.payments.values[it.payment],
        )

    def _order_is_at_rest(self, order):
        if order not in self._orders_at_rest:
            it = self._resolve(order)
            self._orders_at_rest[order] = services.operation_of(it.payment) is None and not any(
                (it.bits & written and not it.bits & deleted)
                or (it.bits & on_bus and any(not it.bits & handled for _, handled in words.CONSUMERS[message]))
                for message, (written, on_bus, deleted) in enumerate(words.STAGES)
            )
        return self._orders_at_rest[order]

    # Always

    def _order(self, number, it):
        status, held = it.reservation or (None, ())
        published = {
            words.name_of(message) for message, (written, _, _) in enumerate(words.STAGES) if it.bits & written
        }
        lines = _merged(self._world.scenario.orders[number].lines)
        _require(
            "all lines or none are reserved",
            held == (lines if status in {"RESERVED", "COMMITTED", "RELEASED", "RETURNED"} else ()),
            f"{status} with {held}, requested were {lines}",
        )
        stock_events = {name for name in published if name.startswith("inventory.")}
        _require(
            "the published events match the reservation's status",
            stock_events == STOCK_EVENTS.get(status, set()),
            f"{status}, published: {stock_events}",
        )
        payment = it.payment and it.payment.status
        payment_events = {name for name in published if name.startswith("payment.")}
        partial = {name for name in payment_events if name.startswith(PARTIAL)}
        _require(
            "the published events match the payment's status",
            payment_events - partial in PAYMENT_EVENTS.get(payment, (set(),)),
            f"{payment}, published: {payment_events}",
        )
        self._refunds(it, partial)
        _require(
            "no payment is both captured and voided",
            not (it.money & words.CAPTURED and it.money & words.VOIDED),
            "captured and voided",
        )
        if it.saga:
            self._decision(it, published)

    def _refunds(self, it, partial):
        """The sums of a payment are those of its refunds, at most what was captured; each was published once."""
        row = it.payment or words.PaymentRow("none")
        made = [refund for refund in row.refunds if refund.is_made]
        sums = sum(refund.units for refund in row.refunds), sum(refund.units for refund in made)
        _require("the sums are those of the refunds", (row.requested, row.refunded) == sums, f"{row}")
        _require("refunds are at most what was captured", row.refunded <= row.requested <= words.UNITS, f"{row}")
        _require(
            "a payment has the status of its refunds",
            {"REFUNDED": row.refunded == words.UNITS, "PARTIALLY_REFUNDED": 0 < row.refunded < words.UNITS}.get(
                row.status, not row.refunded
            ),
            f"{row}",
        )
        named = {f"{PARTIAL}, refund {refund.number}" for refund in made}
        _require(
            "the published events match the payment's refunds",
            partial <= named and len(partial) == len(made) - (row.status == "REFUNDED"),
            f"{row}, published: {partial}",
        )
        _require(
            "the provider has made every refund that is recorded",
            all(words.given_back(it.money, refund.number) == refund.units for refund in made)
            and words.all_given_back(it.money) <= words.UNITS,
            f"{row}, provider: {it.money:b}",
        )

    def _decision(self, it, published):
        order = it.saga
        _require(
            "the published events match the order's status",
            ("order.confirmed" in published or order.status not in CONFIRMED_OR_LATER)
            and ("order.cancelled" in published) == (order.status is OrderStatus.CANCELLED)
            and (order.status is not OrderStatus.CREATED or "order.confirmed" not in published),
            f"{order.status}, published: {published}",
        )
        _require(
            "an order is confirmed only after both replies",
            "order.confirmed" not in published or {"inventory.stock_reserved", "payment.authorized"} <= published,
            f"order.confirmed after {published}",
        )
        reasons = {"OUT_OF_STOCK": "inventory.stock_failed", "PAYMENT_FAILED": "payment.failed"}
        _require(
            "a cancellation has the right reason",
            (order.cancel_reason is not None) == (order.status is OrderStatus.CANCELLED)
            and reasons.get(order.cancel_reason, "order.created") in published
            and (order.cancel_reason != "TIMEOUT" or "order.confirmed" not in published),
            f"{order.status} because of {order.cancel_reason}, published: {published}",
        )

    def _stock(self, orders, stock):
        levels, made = self._world.stocks.values[stock]
        scenario = self._world.scenario
        for product, level in enumerate(levels):
            if level is None:
                continue
            on_hand, reserved = level
            _require("0 <= reserved <= on hand", 0 <= reserved <= on_hand, f"{on_hand} on hand, {reserved} reserved")
            adjusted = sum(
                delta
                for which, (other, delta) in enumerate(scenario.adjustments)
                if other == product and made >> which & 1
            )
            _require(
                "on hand = first + adjustments - (committed - returned)",
                on_hand == scenario.stock[product] + adjusted - self._sum(orders, product, "COMMITTED"),
                f"{on_hand} on hand, {scenario.stock[product]} at first, adjusted by {adjusted}, "
                f"{self._sum(orders, product, 'COMMITTED')} committed",
            )
            _require(
                "reserved = the sum of the reservations",
                reserved == self._sum(orders, product, "RESERVED"),
                f"{reserved} reserved, the reservations have {self._sum(orders, product, 'RESERVED')}",
            )

    def _sum(self, orders, product, status):
        reservations = (self._resolve(order).reservation or (None, ()) for order in orders)
        return sum(units for its, held in reservations if its == status for which, units in held if which == product)

    def _forward(self, old, new):
        if old.saga is not None and old.saga != new.saga:
            _require(
                "an order's status changes only as the state machine permits",
                old.saga.status is new.saga.status or new.saga.status in NEXT.get(old.saga.status, ()),
                f"{old.saga.status} became {new.saga.status}",
            )
            for part in ("stock", "payment"):
                here, there = getattr(old.saga, part), getattr(new.saga, part)
                _require(
                    "an order's stock and payment status only move forward",
                    here == there or FORWARD[here] < FORWARD[there],
                    f"{part} status {here} became {there}",
                )
        _require(
            "progress is never undone",
            not old.bits & ~new.bits and not old.money & ~new.money and _rank(old) <= _rank(new),
            f"payment {old.payment} became {new.payment}",
        )
        if not was_published("order.confirmed", old.bits) and was_published("order.confirmed", new.bits):
            _require(
                "a confirmation precedes a cancellation",
                not was_published("order.cancelled", old.bits),
                "it came after",
            )

    # At rest

    def _settled(self, it):
        self._end(it)
        _require("no settled order counts as stuck", not saga_rules.is_unsettled(it.saga), f"{it.saga}")

    def _end(self, it):
        order, reservation, payment = it.saga, it.reservation and it.reservation[0], it.payment and it.payment.status
        _require(
            "every refund that was requested is made",
            it.payment is None or it.payment.requested == it.payment.refunded == words.all_given_back(it.money),
            f"{it.payment}, provider: {it.money:b}",
        )
        _require("every accepted order is decided", order.status is not OrderStatus.CREATED, "still CREATED")
        if order.status in CONFIRMED_OR_LATER:
            _require(
                "the stock of a confirmed order is COMMITTED",
                reservation == "COMMITTED",
                f"{order.status}, {reservation}",
            )
            _require(
                "the payment of a confirmed order is CAPTURED, unless an administrator has refunded",
                payment == "CAPTURED" or (payment in {"PARTIALLY_REFUNDED", "REFUNDED"} and it.payment.refunds),
                f"{order.status}, {payment}",
            )
            _require(
                "the provider has captured the payment of a confirmed order",
                words.without_refunds(it.money) == words.AUTHORIZED | words.CAPTURED,
                f"provider: {it.money:b}",
            )
            _require(
                "an order has the final statuses of its stock and payment",
                (order.stock, order.payment) == (reservation, payment),
                f"{order}",
            )
            return
        _require("a cancelled order holds no stock", reservation in STOCK_IS_FREE, f"its reservation is {reservation}")
        _require("a cancelled order holds no money", payment in MONEY_IS_FREE, f"its payment is {payment}")
        _require(
            "the provider holds no money of a cancelled order",
            words.without_refunds(it.money) in MONEY_AFTER[payment]
            and words.all_given_back(it.money) == (words.UNITS if payment == "REFUNDED" else 0),
            f"{payment}, provider: {it.money:b}",
        )
        _require(
            "an order has the final statuses of its stock and payment",
            (order.stock, order.payment) == (STOCK_IS_FREE[reservation], MONEY_IS_FREE[payment]),
            f"{order}, {reservation}, {payment}",
        )


def _require(invariant, holds, seen):
    if not holds:
        raise Broken(invariant, seen)


def _rank(it):
    return services.rank_of(it.payment)


def _merged(lines):
    units = {}
    for product, quantity in lines:
        units[product] = units.get(product, 0) + quantity
    return tuple(sorted(units.items()))
