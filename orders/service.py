"""Every way into orders: RPC, the answers of inventory and payments, and the deadline's timer."""

from datetime import timedelta

from nameko import config
from nameko.extensions import DependencyProvider

from contracts.base import Actor
from contracts.catalog import ProductView
from contracts.errors import Overloaded, ServiceUnavailable, UpstreamTimeout, ValidationFailed
from contracts.ids import parse_id
from contracts.inventory import StockCommitted, StockFailed, StockReleased, StockReserved
from contracts.operations import ConsistencyRequest
from contracts.orders import CreateOrder, OrderFilter, OrderNotFound, SagaFilter
from contracts.payments import PaymentAuthorized, PaymentCaptured, PaymentFailed, PaymentRefunded, PaymentVoided
from extensions.cache.local_replica import ReplicaOf
from extensions.cache.versioned_cache import Cache
from extensions.idempotency import keys
from extensions.idempotency.batcher import BatcherProvider
from extensions.idempotency.calls import Call, run_many
from extensions.idempotency.stored_results import has_stored_result
from extensions.messaging.event_handler import handles
from extensions.messaging.queue_depths import Queues
from extensions.observability.metrics import Metrics
from extensions.observability.traces import current_trace
from extensions.operations import operations
from extensions.rpc.client import RpcClient
from extensions.rpc.server import rpc
from extensions.storage.periodic import periodic
from extensions.storage.unit_of_work import Work
from orders import queries, use_cases
from orders.admission import Admission
from orders.decisions import Decisions
from orders.models import Base
from orders.pricing import price_order
from orders.reconciliation import Reconciliation
from orders.saga import Command
from orders.use_cases import NewOrder


def _deadline():
    """Return how long an order may wait for its decision."""
    return timedelta(seconds=float(config["ORDER_DEADLINE_SECONDS"]))


class AdmissionProvider(DependencyProvider):
    """Gives the service its admission control, with the limits that config.yml states."""

    def setup(self):
        """Read the limits, so that a wrong one stops the service at its start."""
        self.admission = Admission(int(config.get("MAX_UNDECIDED_ORDERS", 400)), _deadline())

    def get_dependency(self, worker_ctx):
        """Return the admission control; all workers share it."""
        return self.admission


class DecisionsProvider(DependencyProvider):
    """Gives the service what it counts its decisions with."""

    metrics = Metrics()

    def setup(self):
        """Open the series."""
        self.decisions = Decisions(self.metrics)

    def get_dependency(self, worker_ctx):
        """Return what counts; all workers share it."""
        return self.decisions


class OrdersService(operations.Operations):
    """Takes orders and decides them."""

    name = "orders"
    work = Work(Base)
    batcher = BatcherProvider()
    cache = Cache()
    products = ReplicaOf("catalog", "products")
    services = RpcClient()
    queues = Queues()
    admission = AdmissionProvider()
    decisions = DecisionsProvider()

    # RPC

    @rpc(transaction=False)
    def create_order(self, items, total_amount=None, actor=None, idempotency_key=None):
        """Price an order by the catalog, store it, and set its saga going. Returns the order, CREATED."""
        request = CreateOrder.parse({"items": items, "total_amount": total_amount})
        user_id = Actor.of(actor).user_id
        if user_id is None:
            raise ValidationFailed.field("actor", 'an order belongs to a user: pass actor={"user_id": "...", ...}')
        self._require_room(actor, idempotency_key)
        # Asked before the transaction begins: no connection and no lock waits for another service.
        try:
            products = self._products_of(request)
        except (ServiceUnavailable, UpstreamTimeout):
            if not has_stored_result(self.work, "create_order", idempotency_key, actor):
                raise
            products = None  # an order that was taken before is answered for without them

        def price():
            if products is None:
                raise ServiceUnavailable  # the key was forgotten at this very moment
            return NewOrder(price_order(request, products), user_id, current_trace())

        arguments = {"items": items, "total_amount": total_amount, "actor": actor}
        call = Call("create_order", idempotency_key, arguments, price)
        # With those that are asked for at the same moment: one transaction, and its round trips, for all.
        with keys.in_use("create_order", idempotency_key, actor):
            return self.batcher(call, lambda calls: run_many(self.work, calls, self._place))

    @rpc
    def get_order(self, order_id, actor=None):
        """Return an order; someone else's is OrderNotFound."""
        key, who = parse_id("order_id", order_id), Actor.of(actor)
        order = self.cache.get("order", key)
        if order is None:
            view = queries.get_order(self.work.session, key)
            order = view.to_dict()
            self.cache.store("order", key, order, view.version)
        if not who.may_see(parse_id("user_id", order["user_id"])):
            raise OrderNotFound
        return order

    @rpc
    def list_orders(
        self,
        status=None,
        created_after=None,
        created_before=None,
        user_id=None,
        limit=20,
        cursor=None,
        actor=None,
    ):
        """List the actor's orders, everybody's for an administrator, newest first."""
        wanted = OrderFilter.parse(
            {
                "status": status,
                "created_after": created_after,
                "created_before": created_before,
                "user_id": user_id,
                "limit": limit,
                "cursor": cursor,
            }
        )
        return queries.list_orders(self.work.session, wanted, Actor.of(actor))

    @rpc
    def get_timeline(self, order_id, actor=None):
        """Return every event of an order's saga, oldest first."""
        return queries.get_timeline(self.work.session, parse_id("order_id", order_id), Actor.of(actor))

    @rpc
    def cancel_order(self, order_id, actor=None):
        """Cancel an order that has not been shipped; what it holds is given back."""
        key, who = parse_id("order_id", order_id), Actor.of(actor)
        return self._command(key, use_cases.cancel_command(self.work.session, key, who))

    @rpc
    def ship_order(self, order_id, actor=None):
        """Send a confirmed order on its way."""
        Actor.of(actor).require_admin()
        return self._command(parse_id("order_id", order_id), Command.SHIP)

    @rpc
    def deliver_order(self, order_id, actor=None):
        """Note that a shipped order has arrived."""
        Actor.of(actor).require_admin()
        return self._command(parse_id("order_id", order_id), Command.DELIVER)

    @rpc
    def list_sagas(self, stuck=False, limit=20, cursor=None, actor=None):
        """List orders to which somebody owes something; the stuck ones have waited longer than the deadline."""
        return self._list_sagas({"stuck": stuck, "limit": limit, "cursor": cursor}, actor)

    @rpc
    def list_stuck(self, limit=20, cursor=None, actor=None):
        """List orders to which somebody has owed something for longer than the saga's deadline."""
        return self._list_sagas({"stuck": True, "limit": limit, "cursor": cursor}, actor)

    @rpc(transaction=False)
    def check_consistency(self, since=None, actor=None):
        """Compare the books of all services: whether all is at rest, and who breaks which invariant."""
        Actor.of(actor).require_admin()
        wanted = ConsistencyRequest.parse({"since": since})
        return Reconciliation(self.work, self.dead_letters, self.services, self.queues).run(wanted.since)

    # Events: the answers of inventory and payments

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
    def on_replies(self, events):
        """Decide orders whose stock and payment are both answered for; note the rest, which follows a decision."""
        self._forget(use_cases.apply_replies(self.work.session, events, self._publish))

    # The clock

    # After a standstill of ours, the answers that came in time are still in the queues: they are heard first.
    @periodic(seconds=1.0, after_gap=3.0)
    def expire_orders(self):
        """Cancel orders that nobody answered for within their deadline."""
        expired = use_cases.expire_orders(self.work.session, _deadline(), self._publish)
        self._forget(expired)
        if len(expired) == use_cases.EXPIRE_BATCH:
            self.work.trigger("expire_orders")

    def _place(self, orders):
        """Store orders that were priced; returns each one's answer."""
        views = use_cases.create_orders(self.work.session, orders, config["CURRENCY"], _deadline(), self.work.publish)
        for _ in views:
            self.admission.took_one()
        return [view.to_dict() for view in views]

    def _list_sagas(self, wanted, actor):
        Actor.of(actor).require_admin()
        return queries.list_sagas(self.work.session, SagaFilter.parse(wanted), _deadline())

    def _products_of(self, request):
        product_ids = sorted({str(item.product_id) for item in request.items})
        return list(self.products.get(product_ids, self._ask_catalog).values())

    def _require_room(self, actor, idempotency_key):
        """Raise Overloaded for a new order when too many are undecided; what was taken before is still answered for."""
        if not self.admission.has_room(self._count_waiting) and not has_stored_result(
            self.work, "create_order", idempotency_key, actor
        ):
            detail = "Too many orders wait for their decision. Nothing was done; try again shortly."
            raise Overloaded(detail, retry_after=1)

    def _ask_catalog(self, product_ids):
        found = self.services.catalog.get_products(product_ids=product_ids)
        return {product["id"]: ProductView.model_validate(product) for product in found["items"]}

    def _count_waiting(self):
        with self.work.transaction() as session:
            return queries.count_waiting(session, _deadline(), self.admission.late_after)

    def _command(self, order_id, command):
        order = use_cases.command_order(self.work.session, order_id, command, self._publish)
        self._forget([order])
        return queries.get_order(self.work.session, order_id)

    def _publish(self, event, cause=None):
        """Publish what became of an order, and count it when that is committed."""
        self.work.after_commit(self.decisions.count, event)
        return self.work.publish(event, cause)

    def _forget(self, orders):
        if orders:
            self.work.around_commit(self.cache.invalidate, "order", {order.id: order.version for order in orders})
