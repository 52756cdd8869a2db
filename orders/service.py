"""The entrypoints of the orders service: RPC, the replies of inventory and payments, and the timer of the deadline."""

import functools
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast, final
from uuid import UUID

from nameko import config
from sqlalchemy.orm import Session

from contracts.base import OPERATOR, Actor, Cause, Event, Json, Page, PageRequest, Received
from contracts.catalog import ProductCreated, ProductLookup, ProductUpdated, ProductView
from contracts.errors import ServiceUnavailable, ValidationFailed
from contracts.ids import parse_id
from contracts.inventory import StockCommitted, StockFailed, StockReleased, StockReserved
from contracts.operations import ConsistencyRequest, ConsistencyView
from contracts.orders import (
    CancelOrder,
    CreateOrder,
    ExportedOrder,
    OrderFilter,
    OrderNotFound,
    OrdersRpc,
    OrderView,
    SagaFilter,
    SagaView,
    ShipOrder,
    TimelinePositions,
    TimelinesView,
    TimelineView,
)
from contracts.payments import (
    PaymentAuthorized,
    PaymentCaptured,
    PaymentFailed,
    PaymentPartiallyRefunded,
    PaymentRefunded,
    PaymentVoided,
)
from contracts.services import Services
from contracts.users import UserDeleted
from extensions.cache.local_copies import LocalCopies, LocalCopiesProvider
from extensions.cache.versioned_cache import Cache, VersionedCache
from extensions.idempotency import keys
from extensions.idempotency.batcher import Batcher, BatcherProvider
from extensions.idempotency.calls import Call, run_many
from extensions.idempotency.stored_results import has_stored_result
from extensions.messaging.event_handler import handles
from extensions.messaging.queue_depths import QueueDepthsProvider
from extensions.observability.traces import current_trace
from extensions.operations import operations
from extensions.rpc.client import RpcClient
from extensions.rpc.server import rpc
from extensions.rpc.signature import WireArguments
from extensions.runtime.parsed_settings import is_production
from extensions.storage.deleted_users import DeletedUser
from extensions.storage.engine import LockTimeout
from extensions.storage.periodic import periodic
from extensions.storage.sweeps import Sweep, SweepProvider
from extensions.storage.unit_of_work import UnitOfWork, Work
from orders import account_deletions, queries, replicas, use_cases
from orders.admission import Waiting
from orders.decision_metrics import DecisionMetrics
from orders.models import Base, LockedOrder, ProductReplica
from orders.pricing import price_order
from orders.product_source import CatalogSilent, Found, ProductSource
from orders.providers import (
    PLACING_SECONDS,
    AdmissionQueue,
    AdmissionQueueProvider,
    DecisionMetricsProvider,
    ProductSourceProvider,
    deadline,
)
from orders.reconciliation import Reconciliation
from orders.saga import Command
from orders.use_cases import NewOrder

NOTHING_ARRIVED = WireArguments()


def _price(order: CreateOrder, found: Found | None, user_id: UUID) -> NewOrder:
    if found is None:
        raise ServiceUnavailable  # the order was placed before, but its key was deleted in the meantime
    priced = price_order(order, found.products)
    return NewOrder(priced, user_id, current_trace(), order.payment_method, found.confirmed_at, order.shipping_address)


def _require_simulated_provider(order: CreateOrder) -> None:
    """Raise ValidationFailed if `order` tells the simulated provider what to do, and a real one is asked."""
    is_simulated = config.get("PAYMENT_PROVIDER", "simulated") == "simulated"
    if "payment_method" in order.model_fields_set and is_production(config) and not is_simulated:
        raise ValidationFailed.field("payment_method", "only the simulated payment provider takes this field")


@final
class OrdersService(operations.Operations, OrdersRpc):
    """Stores orders, and confirms or cancels them."""

    name = "orders"
    work: UnitOfWork = Work(Base)
    batcher: Batcher = BatcherProvider()
    cache: VersionedCache = Cache()
    products: LocalCopies[ProductView] = LocalCopiesProvider("catalog", "products")
    services: Services = RpcClient()
    queues = QueueDepthsProvider()
    admission_queue: AdmissionQueue = AdmissionQueueProvider()
    product_source: ProductSource = ProductSourceProvider()
    decisions: DecisionMetrics = DecisionMetricsProvider()
    ahead: Sweep = SweepProvider("correcting deadlines of orders")
    overdue: Sweep = SweepProvider("cancelling overdue orders")
    deletions: Sweep = SweepProvider("cancelling orders of deleted users")

    # RPC

    # Orders that wait in the admission queue have workers of their own, so they delay no other call.
    @rpc(transaction=False, own_calls="MAX_WAITING_ORDERS")
    def create_order(
        self,
        order: CreateOrder,
        *,
        actor: Actor = OPERATOR,
        idempotency_key: str | None = None,
        arrived: WireArguments = NOTHING_ARRIVED,
    ) -> Json[OrderView]:
        user_id = actor.user_id
        if user_id is None:
            raise ValidationFailed.field("actor", 'an order belongs to a user: pass actor={"user_id": "...", ...}')
        _require_simulated_provider(order)

        def is_known() -> bool:
            return has_stored_result(self.work, "create_order", idempotency_key, actor)

        asked = {"items": arrived["items"], "total_amount": arrived.get("total_amount"), "actor": actor}
        if "payment_method" in arrived:  # earlier versions stored results of requests without this field
            asked["payment_method"] = arrived["payment_method"]
        if arrived.get("shipping_address") is not None:
            asked["shipping_address"] = arrived["shipping_address"]
        with keys.in_use("create_order", idempotency_key, actor):
            self.admission_queue.check(self._count_waiting, unless=is_known)
            # Call catalog before the transaction, so that no connection or lock is held during the call.
            found = self._products_of(order, unless=is_known)
            with self.admission_queue.entered(self._count_waiting, unless=is_known):
                call = Call("create_order", idempotency_key, asked, lambda: _price(order, found, user_id))
                # Concurrent calls share one transaction and its round trips.
                result = self.batcher(call, lambda calls: run_many(self.work, calls, self._place))
        return cast("Json[OrderView]", result)

    @rpc
    def get_order(self, order_id: UUID, *, actor: Actor = OPERATOR) -> Json[OrderView]:
        order = cast("Json[OrderView] | None", self.cache.get("order", order_id))
        if order is None:
            view = queries.get_order(self.work.session, order_id)
            order = view.to_dict()
            self.cache.store("order", order_id, order, view.version)
        if not actor.may_see(parse_id("user_id", order["user_id"])):
            raise OrderNotFound
        return order

    @rpc
    def list_orders(self, wanted: OrderFilter, *, actor: Actor = OPERATOR) -> Json[Page[OrderView]]:
        return queries.list_orders(self.work.session, wanted, actor)

    @rpc
    def get_timeline(self, order_id: UUID, *, actor: Actor = OPERATOR) -> Json[TimelineView]:
        return queries.get_timeline(self.work.session, order_id, actor).to_dict()

    @rpc
    def export_orders(self, user_id: UUID, page: PageRequest, *, actor: Actor = OPERATOR) -> Json[Page[ExportedOrder]]:
        return queries.export_orders(self.work.session, user_id, page, actor)

    @rpc(admin=True)
    def get_timelines(self, wanted: TimelinePositions, *, actor: Actor = OPERATOR) -> Json[TimelinesView]:
        return queries.get_timelines(self.work.session, wanted).to_dict()

    @rpc(idempotent=True)
    def cancel_order(
        self,
        order_id: UUID,
        cancellation: CancelOrder,
        *,
        actor: Actor = OPERATOR,
        idempotency_key: str | None = None,
    ) -> Json[OrderView]:
        command = use_cases.cancel_command(self.work.session, order_id, actor)
        return self._command(order_id, command, note=cancellation.reason)

    @rpc(idempotent=True, admin=True)
    def ship_order(
        self, order_id: UUID, shipment: ShipOrder, *, actor: Actor = OPERATOR, idempotency_key: str | None = None
    ) -> Json[OrderView]:
        return self._command(order_id, Command.SHIP, shipment)

    @rpc(idempotent=True, admin=True)
    def deliver_order(
        self, order_id: UUID, *, actor: Actor = OPERATOR, idempotency_key: str | None = None
    ) -> Json[OrderView]:
        return self._command(order_id, Command.DELIVER)

    @rpc(admin=True)
    def list_sagas(self, wanted: SagaFilter, *, actor: Actor = OPERATOR) -> Json[Page[SagaView]]:
        return queries.list_sagas(self.work.session, wanted, deadline())

    @rpc(admin=True)
    def list_stuck(self, wanted: PageRequest, *, actor: Actor = OPERATOR) -> Json[Page[SagaView]]:
        stuck = SagaFilter(stuck=True, limit=wanted.limit, cursor=wanted.cursor)
        return queries.list_sagas(self.work.session, stuck, deadline())

    @rpc(transaction=False, admin=True)
    def check_consistency(self, wanted: ConsistencyRequest, *, actor: Actor = OPERATOR) -> Json[ConsistencyView]:
        reconciliation = Reconciliation(self.work, self.dead_letters, self.services, self.queues)
        return reconciliation.run(wanted.since).to_dict()

    # Events: the replies of inventory and payments

    @handles(
        StockReserved,
        StockFailed,
        StockCommitted,
        StockReleased,
        PaymentAuthorized,
        PaymentFailed,
        PaymentCaptured,
        PaymentVoided,
        PaymentPartiallyRefunded,
        PaymentRefunded,
    )
    def on_replies(self, events: Sequence[Received[Any]]) -> None:
        """Decide orders whose stock and payment have both replied; record replies that follow a decision."""
        self._forget(use_cases.apply_replies(self.work.session, events, self._publish))

    # Events: the products of catalog

    @handles(ProductCreated, ProductUpdated)
    def on_products(self, events: Sequence[Received[Any]]) -> None:
        """Store the product data that pricing needs if catalog does not respond."""
        now = datetime.now(UTC)
        changes = [(event, max(timedelta(), now - event.updated_at)) for event in (one.event for one in events)]
        replicas.replicate_products(self.work.session, changes)

    # Events: the accounts of users

    @handles(UserDeleted)
    def on_user_deleted(self, events: Sequence[Received[UserDeleted]]) -> None:
        """Cancel the open orders of users who have deleted their accounts. The orders stay in the books."""
        account_deletions.record_deleted_users(self.work.session, events)
        self.work.trigger(self.cancel_orders_of_deleted_users)

    # Timers

    @periodic(seconds=5.0, transaction=False)
    def cancel_orders_of_deleted_users(self) -> None:
        """Cancel open orders, also those that were placed while the account was deleted."""
        self.deletions.run(self.work, account_deletions.lock_deleted_users, self._cancel_orders)

    # After a suspension of the process, handle the waiting replies before orders expire.
    @periodic(seconds=1.0, after_gap=3.0, transaction=False)
    def expire_orders(self) -> None:
        """Cancel orders that were not decided within their deadline. One that cannot be cancelled delays no other."""
        within = deadline()
        self.ahead.run(
            self.work,
            functools.partial(use_cases.lock_ahead, deadline=within),
            functools.partial(use_cases.correct_deadlines, deadline=within),
        )
        self.overdue.run(self.work, use_cases.lock_overdue, self._expire)

    # Each process stores the products that it received. A timer does it, so that orders do not become slower.
    @periodic(seconds=1.0, transaction=False, every_process=True)
    def store_confirmed_products(self) -> None:
        """Store the products that catalog has confirmed since the last time."""
        self.product_source.confirmations.store(functools.partial(replicas.store, self.work))

    def _expire(self, session: Session, overdue: Sequence[LockedOrder]) -> None:
        use_cases.expire_orders(session, overdue, self._publish)
        self._forget(overdue)
        if len(overdue) == use_cases.EXPIRE_BATCH:  # there may be more
            self.work.trigger(self.expire_orders)

    def _cancel_orders(self, session: Session, users: Sequence[DeletedUser]) -> None:
        versions, is_full = account_deletions.cancel_orders(session, users, self._publish)
        if versions:
            self.work.around_commit(self.cache.invalidate, "order", versions)
        if is_full:
            self.work.trigger(self.cancel_orders_of_deleted_users)

    def _place(self, orders: Sequence[NewOrder]) -> list[Json[OrderView]]:
        """Store orders that were priced; returns the result of each."""
        views = use_cases.create_orders(self.work.session, orders, config["CURRENCY"], deadline(), self.work.publish)
        for _ in views:
            self.admission_queue.placed()
        return [view.to_dict() for view in views]

    def _products_of(self, order: CreateOrder, *, unless: Callable[[], bool]) -> Found | None:
        """Return the products of an order. Raises CatalogSilent; if `unless()` is true, returns None instead."""
        product_ids = sorted({str(item.product_id) for item in order.items})
        seconds = current_trace().remaining(float(config.get("RPC_TIMEOUT_SECONDS", 4))) - PLACING_SECONDS
        try:
            return self.product_source.find(product_ids, self.products.get, self._ask_catalog, self._replicas, seconds)
        except CatalogSilent:
            if not unless():
                raise
            return None

    def _ask_catalog(self, product_ids: Sequence[str], seconds: float) -> Mapping[str, ProductView]:
        lookup = ProductLookup.parse({"product_ids": product_ids})
        found = self.services.within(seconds).catalog.get_products(lookup)
        return {product["id"]: ProductView.model_validate(product) for product in found["items"]}

    def _replicas(self, product_ids: Sequence[str]) -> Sequence[ProductReplica]:
        try:
            with self.work.transaction(lock_timeout=replicas.LOCK_TIMEOUT) as session:
                return queries.get_replicas(session, product_ids, self.product_source.max_age)
        except LockTimeout:
            return ()  # the table is locked: catalog is asked for as long as the order can wait

    def _count_waiting(self) -> Waiting:
        with self.work.transaction() as session:
            return queries.count_waiting(session, deadline(), self.admission_queue.admission.limit.late_after)

    def _command(
        self, order_id: UUID, command: Command, shipment: ShipOrder | None = None, note: str | None = None
    ) -> Json[OrderView]:
        order = use_cases.command_order(self.work.session, order_id, command, self._publish, shipment, note)
        self._forget([order])
        return queries.get_order(self.work.session, order_id).to_dict()

    def _publish(self, event: Event, cause: Cause | None = None) -> UUID:
        """Publish the decision about an order, and count it after the commit."""
        self.work.after_commit(self.decisions.count, event)
        self.work.after_commit(self.admission_queue.decided, event)
        return self.work.publish(event, cause)

    def _forget(self, orders: Sequence[LockedOrder]) -> None:
        if orders:
            self.work.around_commit(self.cache.invalidate, "order", {order.id: order.version for order in orders})
