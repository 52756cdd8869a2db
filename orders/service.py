"""The entrypoints of orders: RPC, the replies of inventory and payments, and the timer of the saga's deadline."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, cast, final
from uuid import UUID

from nameko import config
from nameko.extensions import DependencyProvider

from contracts.base import OPERATOR, Actor, Cause, Event, Json, Page, PageRequest, Received
from contracts.catalog import ProductLookup, ProductView
from contracts.errors import Overloaded, ServiceUnavailable, UpstreamTimeout, ValidationFailed
from contracts.ids import parse_id
from contracts.inventory import StockCommitted, StockFailed, StockReleased, StockReserved
from contracts.operations import ConsistencyRequest, ConsistencyView
from contracts.orders import (
    CreateOrder,
    OrderFilter,
    OrderNotFound,
    OrdersRpc,
    OrderView,
    SagaFilter,
    SagaView,
    TimelineView,
)
from contracts.payments import PaymentAuthorized, PaymentCaptured, PaymentFailed, PaymentRefunded, PaymentVoided
from contracts.services import Services
from extensions.cache.local_replica import LocalReplica, ReplicaOf
from extensions.cache.versioned_cache import Cache, VersionedCache
from extensions.idempotency import keys
from extensions.idempotency.batcher import Batcher, BatcherProvider
from extensions.idempotency.calls import Call, run_many
from extensions.idempotency.stored_results import has_stored_result
from extensions.messaging.event_handler import handles
from extensions.messaging.queue_depths import Queues
from extensions.observability.metrics import Metrics
from extensions.observability.traces import current_trace
from extensions.operations import operations
from extensions.rpc.client import RpcClient
from extensions.rpc.server import rpc
from extensions.rpc.signature import WireArguments
from extensions.storage.periodic import periodic
from extensions.storage.unit_of_work import UnitOfWork, Work
from orders import queries, use_cases
from orders.admission import Admission, Waiting
from orders.decision_metrics import DecisionMetrics
from orders.models import Base, LockedOrder
from orders.pricing import price_order
from orders.reconciliation import Reconciliation
from orders.saga import Command
from orders.use_cases import NewOrder

NOTHING_ARRIVED = WireArguments()


def _deadline() -> timedelta:
    """Return how long an order may wait for its decision."""
    return timedelta(seconds=float(config["ORDER_DEADLINE_SECONDS"]))


class AdmissionProvider(DependencyProvider):
    """Gives the service its admission control, with the limits that config.yml states."""

    def setup(self) -> None:
        """Read the limits, so that a wrong one stops the service at its start."""
        self.admission = Admission(int(config.get("MAX_UNDECIDED_ORDERS", 400)), _deadline())

    def get_dependency(self, _worker_ctx: Any) -> Admission:
        """Return the admission control; all workers share it."""
        return self.admission


class DecisionsProvider(DependencyProvider):
    """Gives the service the metrics of its decisions."""

    metrics = Metrics()

    def setup(self) -> None:
        """Create the metrics."""
        self.decisions = DecisionMetrics(self.metrics)

    def get_dependency(self, _worker_ctx: Any) -> DecisionMetrics:
        """Return the metrics; all workers share them."""
        return self.decisions


@final
class OrdersService(operations.Operations, OrdersRpc):
    """Stores orders, and confirms or cancels them."""

    name = "orders"
    work: UnitOfWork = Work(Base)
    batcher: Batcher = BatcherProvider()
    cache: VersionedCache = Cache()
    products: LocalReplica[ProductView] = ReplicaOf("catalog", "products")
    services: Services = RpcClient()
    queues = Queues()
    admission: Admission = AdmissionProvider()
    decisions: DecisionMetrics = DecisionsProvider()

    # RPC

    @rpc(transaction=False)
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
        self._require_room(actor, idempotency_key)
        # Call catalog before the transaction, so that no connection or lock is held during the call.
        try:
            products = self._products_of(order)
        except (ServiceUnavailable, UpstreamTimeout):
            if not self._has_stored_result(actor, idempotency_key):
                raise
            products = None  # the order was placed before: its stored result needs no products

        def price() -> NewOrder:
            if products is None:
                raise ServiceUnavailable  # the key was deleted in the meantime
            return NewOrder(price_order(order, products), user_id, current_trace())

        asked = {"items": arrived["items"], "total_amount": arrived.get("total_amount"), "actor": actor}
        call = Call("create_order", idempotency_key, asked, price)
        # Concurrent calls share one transaction and its round trips.
        with keys.in_use("create_order", idempotency_key, actor):
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
    def cancel_order(self, order_id: UUID, *, actor: Actor = OPERATOR) -> Json[OrderView]:
        return self._command(order_id, use_cases.cancel_command(self.work.session, order_id, actor))

    @rpc(admin=True)
    def ship_order(self, order_id: UUID, *, actor: Actor = OPERATOR) -> Json[OrderView]:
        return self._command(order_id, Command.SHIP)

    @rpc(admin=True)
    def deliver_order(self, order_id: UUID, *, actor: Actor = OPERATOR) -> Json[OrderView]:
        return self._command(order_id, Command.DELIVER)

    @rpc(admin=True)
    def list_sagas(self, wanted: SagaFilter, *, actor: Actor = OPERATOR) -> Json[Page[SagaView]]:
        return queries.list_sagas(self.work.session, wanted, _deadline())

    @rpc(admin=True)
    def list_stuck(self, wanted: PageRequest, *, actor: Actor = OPERATOR) -> Json[Page[SagaView]]:
        stuck = SagaFilter(stuck=True, limit=wanted.limit, cursor=wanted.cursor)
        return queries.list_sagas(self.work.session, stuck, _deadline())

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
        PaymentRefunded,
    )
    def on_replies(self, events: Sequence[Received[Any]]) -> None:
        """Decide orders whose stock and payment have both replied; record replies that follow a decision."""
        self._forget(use_cases.apply_replies(self.work.session, events, self._publish))

    # Timers

    # After a suspension of the process, handle the waiting replies before orders expire.
    @periodic(seconds=1.0, after_gap=3.0)
    def expire_orders(self) -> None:
        """Cancel orders that were not decided within their deadline."""
        expired = use_cases.expire_orders(self.work.session, _deadline(), self._publish)
        self._forget(expired)
        if len(expired) == use_cases.EXPIRE_BATCH:
            self.work.trigger("expire_orders")

    def _place(self, orders: Sequence[NewOrder]) -> list[Json[OrderView]]:
        """Store orders that were priced; returns the result of each."""
        views = use_cases.create_orders(self.work.session, orders, config["CURRENCY"], _deadline(), self.work.publish)
        for _ in views:
            self.admission.took_one()
        return [view.to_dict() for view in views]

    def _products_of(self, order: CreateOrder) -> list[ProductView]:
        product_ids = sorted({str(item.product_id) for item in order.items})
        return list(self.products.get(product_ids, self._ask_catalog).values())

    def _require_room(self, actor: Actor, idempotency_key: str | None) -> None:
        """Raise Overloaded for a new order when too many are undecided; a known key still gets its stored result."""
        if not self.admission.has_room(self._count_waiting) and not self._has_stored_result(actor, idempotency_key):
            detail = "Too many orders wait for their decision. Nothing was done; try again shortly."
            raise Overloaded(detail, retry_after=1)

    def _has_stored_result(self, actor: Actor, idempotency_key: str | None) -> bool:
        return has_stored_result(self.work, "create_order", idempotency_key, actor)

    def _ask_catalog(self, product_ids: Sequence[str]) -> Mapping[str, ProductView]:
        found = self.services.catalog.get_products(ProductLookup.parse({"product_ids": product_ids}))
        return {product["id"]: ProductView.model_validate(product) for product in found["items"]}

    def _count_waiting(self) -> Waiting:
        with self.work.transaction() as session:
            return queries.count_waiting(session, _deadline(), self.admission.late_after)

    def _command(self, order_id: UUID, command: Command) -> Json[OrderView]:
        order = use_cases.command_order(self.work.session, order_id, command, self._publish)
        self._forget([order])
        return queries.get_order(self.work.session, order_id).to_dict()

    def _publish(self, event: Event, cause: Cause | None = None) -> UUID:
        """Publish the decision about an order, and count it after the commit."""
        self.work.after_commit(self.decisions.count, event)
        return self.work.publish(event, cause)

    def _forget(self, orders: Sequence[LockedOrder]) -> None:
        if orders:
            self.work.around_commit(self.cache.invalidate, "order", {order.id: order.version for order in orders})
