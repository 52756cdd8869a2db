"""Two concurrent transactions on the same data: for every lock that the code takes, the second waits for the first.

Each race also runs without its lock and must then end with a wrong outcome. So every lock is necessary, and no test
passes by chance. qa/model shows the effect of each missing lock on the whole saga.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace

import eventlet
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.sql import Select

from contracts.base import OPERATOR
from contracts.ids import new_id
from contracts.inventory import AdjustStock, SetStock, StockIsReserved, StockReserved
from contracts.orders import CancelReason, OrderCancelled, OrderConfirmed, OrderCreated, OrderLine
from contracts.payments import PaymentAuthorized
from extensions.observability.traces import Trace
from inventory import queries as inventory_queries
from inventory import use_cases as inventory
from orders import use_cases as orders
from orders.pricing import PricedOrder
from orders.saga import Command
from payments import queries as payment_queries
from payments import use_cases as payments
from payments.attempts import Answer
from payments.provider import Approved
from tests.service.stateful import Transactions, received
from tests.support import eventually

USER = new_id()
NO_KEYS = text("SELECT CAST(:keys AS bigint[])")


class Race:
    """A database with an order and a product. `second` starts after the work of `first` and before its commit."""

    service = ""
    wrong = ()
    """Errors that may occur without the lock, instead of a wrong outcome."""

    def __init__(self):
        self.transactions = Transactions(self.service)
        self.published = []
        self.order, self.other, self.product = new_id(), new_id(), new_id()

    def run(self):
        """Run the race; return its outcome."""
        self.prepare()
        with Session(self.transactions.engine) as session, session.begin():
            self.first(session, self.publish)
            session.flush()
            backend = []
            second = eventlet.spawn(self._second, backend)
            eventually(lambda: second.dead or (backend and self._waits(backend[0])))
        second.wait()
        return self.outcome()

    def publish(self, event, cause=None):
        self.published.append(event)
        return new_id()

    def _second(self, backend):
        with Session(self.transactions.engine) as session, session.begin():
            backend.append(session.scalar(text("SELECT pg_backend_pid()")))
            self.second(session, self.publish)

    def _waits(self, backend):
        return self.transactions.read(
            "SELECT FROM pg_stat_activity WHERE pid = :pid AND wait_event_type = 'Lock'", pid=backend
        )

    def prepare(self):
        """Store the rows that exist before the race."""

    def created(self, order):
        line = OrderLine(product_id=self.product, product_sku="SKU", quantity=1, price_snapshot=Decimal(1))
        return received(
            OrderCreated(order_id=order, user_id=USER, total_amount=Decimal(1), currency="TRY", items=(line,))
        )

    def cancelled(self):
        return received(OrderCancelled(order_id=self.order, user_id=USER, reason=CancelReason.USER))


class InventoryRace(Race):
    service = "inventory"

    def prepare(self):
        with self.transactions.open([]) as (session, publish):
            product = SimpleNamespace(id=self.product, sku="SKU", version=1)
            call = inventory.Call(Trace(), publish)
            inventory.set_stock(session, SetStock(product_id=self.product, quantity=1), OPERATOR, call, [product])

    def first(self, session, publish):
        inventory.apply_order_events(session, [self.created(self.order)], publish)

    def outcome(self):
        [levels] = self.transactions.read(
            "SELECT on_hand, reserved FROM stock WHERE product_id = :product", product=self.product
        )
        statuses = self.transactions.read(
            "SELECT status FROM reservations WHERE order_id IN (:order, :other) ORDER BY created_at",
            order=self.order,
            other=self.other,
        )
        return tuple(levels), [status for (status,) in statuses]


class TwoOrdersReserveTheLastUnit(InventoryRace):
    right = ((1, 1), ["RESERVED", "FAILED"])

    def second(self, session, publish):
        inventory.apply_order_events(session, [self.created(self.other)], publish)


class TheLastUnitIsReservedAndRemoved(InventoryRace):
    right = ((1, 1), ["RESERVED"])

    def second(self, session, publish):
        request, call = AdjustStock(delta=-1, reason="broken"), inventory.Call(Trace(), publish)
        with pytest.raises(StockIsReserved):
            inventory.adjust_stock(session, self.product, request, OPERATOR, call)

    wrong = (pytest.fail.Exception,)


class AnUnknownOrderIsCreatedAndCancelled(InventoryRace):
    right = ((1, 0), ["RELEASED"])

    def second(self, session, publish):
        inventory.apply_order_events(session, [self.cancelled()], publish)


class ASkuChangesWhileStockIsSet(InventoryRace):
    right = ("SKU-2", "SKU-2")

    def prepare(self):
        with self.transactions.open([]) as (session, _):
            inventory.replicate_products(session, [self.version(1)])

    def first(self, session, publish):
        call = inventory.Call(Trace(), publish)
        inventory.set_stock(session, SetStock(product_id=self.product, quantity=1), OPERATOR, call)

    def second(self, session, publish):
        inventory.replicate_products(session, [self.version(2)])

    def version(self, number):
        return SimpleNamespace(id=self.product, sku=f"SKU-{number}", version=number)

    def outcome(self):
        joined = "stock JOIN product_replicas ON id = product_id WHERE id = :product"
        [skus] = self.transactions.read(f"SELECT product_sku, sku FROM {joined}", product=self.product)
        return tuple(skus)


class PaymentsRace(Race):
    service = "payments"

    def outcome(self):
        return self.transactions.read(
            "SELECT status, cancel_requested FROM payments WHERE order_id = :order", order=self.order
        )

    def second(self, session, publish):
        payments.apply_order_events(session, [self.cancelled()])


class AnUnknownPaymentIsOpenedAndCancelled(PaymentsRace):
    right = [("PENDING", True)]  # noqa: RUF012
    wrong = (IntegrityError,)  # without the lock, the unique key prevents the second row

    def first(self, session, publish):
        payments.apply_order_events(session, [self.created(self.order)])


class AnOutcomeIsRecordedAndTheOrderCancelled(PaymentsRace):
    right = [("AUTHORIZED", True)]  # noqa: RUF012 - it is being voided

    def prepare(self):
        with self.transactions.open([]) as (session, _):
            payments.apply_order_events(session, [self.created(self.order)])
        [(self.payment,)] = self.transactions.read("SELECT id FROM payments WHERE order_id = :order", order=self.order)

    def first(self, session, publish):
        call = payment_queries.calls_of(session, [self.payment])[self.payment]
        answer = Answer(call, Approved("auth_1"), datetime.now(UTC), timedelta(seconds=1))
        payments.record_outcomes(session, {self.payment: answer}, publish)


class OrdersRace(Race):
    service = "orders"

    def prepare(self):
        with self.transactions.open([]) as (session, publish):
            line = OrderLine(product_id=self.product, product_sku="SKU", quantity=1, price_snapshot=Decimal(1))
            priced = PricedOrder(lines=(line,), total=Decimal(1))
            new = [orders.NewOrder(priced, USER)]
            self.order = orders.create_orders(session, new, "TRY", timedelta(0), publish)[0].id

    def reserved(self, session, publish):
        orders.apply_replies(session, [received(StockReserved(order_id=self.order))], publish)

    def authorised(self, session, publish):
        answer = PaymentAuthorized(
            order_id=self.order, payment_id=new_id(), transaction_reference="auth_1", amount=Decimal(1), currency="TRY"
        )
        orders.apply_replies(session, [received(answer)], publish)

    def outcome(self):
        [(status,)] = self.transactions.read("SELECT status FROM orders WHERE id = :order", order=self.order)
        return status, [type(event) for event in self.published if event.order_id == self.order]


class BothRepliesAreConcurrent(OrdersRace):
    right = ("CONFIRMED", [OrderConfirmed])
    first, second = OrdersRace.reserved, OrdersRace.authorised


class TheUserCancelsWhileItConfirms(OrdersRace):
    right = ("CANCELLED", [OrderCancelled])
    wrong = (IntegrityError,)  # without the lock, a CHECK fails: a confirmed order has no cancel_reason
    second = OrdersRace.authorised

    def prepare(self):
        super().prepare()
        with self.transactions.open([]) as (session, publish):
            self.reserved(session, publish)

    def first(self, session, publish):
        orders.command_order(session, self.order, Command.CANCEL_BY_USER, publish)


class TheDeadlinePassesWhileItConfirms(TheUserCancelsWhileItConfirms):
    right = ("CONFIRMED", [OrderConfirmed])
    first = OrdersRace.authorised

    def second(self, session, publish):
        orders.expire_orders(session, orders.lock_overdue(session), publish)


@dataclass(frozen=True)
class Lock:
    """A lock, the races that it decides, and a function that removes it."""

    name: str
    races: tuple
    take_out: object


def _without_for_update(monkeypatch):
    monkeypatch.setattr(Select, "with_for_update", lambda statement, **_: statement)


def _without_advisory_lock(queries):
    return lambda monkeypatch: monkeypatch.setattr(queries, "_LOCK_KEYS", NO_KEYS)


LOCKS = (
    Lock("stock row", (TwoOrdersReserveTheLastUnit, TheLastUnitIsReservedAndRemoved), _without_for_update),
    Lock(
        "advisory lock of inventory",
        (AnUnknownOrderIsCreatedAndCancelled,),
        _without_advisory_lock(inventory_queries),
    ),
    Lock(
        "advisory lock of payments",
        (AnUnknownPaymentIsOpenedAndCancelled,),
        _without_advisory_lock(payment_queries),
    ),
    Lock("replica of a product", (ASkuChangesWhileStockIsSet,), _without_for_update),
    Lock("payment row", (AnOutcomeIsRecordedAndTheOrderCancelled,), _without_for_update),
    Lock(
        "order row",
        (BothRepliesAreConcurrent, TheUserCancelsWhileItConfirms, TheDeadlinePassesWhileItConfirms),
        _without_for_update,
    ),
)
CASES = [pytest.param(race, lock.take_out, id=f"{race.__name__}: {lock.name}") for lock in LOCKS for race in lock.races]


@pytest.mark.usefixtures("servers")
@pytest.mark.parametrize(("race", "take_out"), CASES)
def test_the_second_transaction_waits_for_the_first(race, take_out):
    run = race()
    try:
        assert run.run() == run.right
    finally:
        run.transactions.close()


@pytest.mark.usefixtures("servers")
@pytest.mark.parametrize(("race", "take_out"), CASES)
def test_without_the_lock_the_outcome_is_wrong(race, take_out, monkeypatch):
    take_out(monkeypatch)
    run = race()
    try:
        outcome = run.run()
        print("ends as", outcome)
        assert outcome != run.right
    except run.wrong:
        pass
    finally:
        run.transactions.close()
