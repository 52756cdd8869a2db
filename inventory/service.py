"""The entrypoints of the inventory service: RPC methods and event handlers."""

from collections.abc import Callable, Sequence
from typing import Any, cast, final
from uuid import UUID

from nameko import config
from sqlalchemy.orm import Session

from contracts.base import OPERATOR, Actor, Json, Page, PageRequest, Received
from contracts.catalog import ProductCreated, ProductLookup, ProductUpdated, ProductView
from contracts.errors import ServiceUnavailable, UpstreamTimeout
from contracts.inventory import (
    AdjustStock,
    InventoryRpc,
    MovementView,
    SetStock,
    SetStockLevel,
    SetStockView,
    SetThreshold,
    StockFilter,
    StockView,
)
from contracts.orders import OrderCancelled, OrderConfirmed, OrderCreated
from contracts.services import Services
from extensions.idempotency.calls import run_once
from extensions.idempotency.stored_results import has_stored_result
from extensions.messaging.event_handler import handles
from extensions.observability.traces import current_trace
from extensions.operations import audits, importing, operations
from extensions.rpc.client import RpcClient
from extensions.rpc.server import rpc
from extensions.rpc.signature import WireArguments
from extensions.runtime.bulkhead import Bulkhead
from extensions.storage.imports import Claimed, Merged
from extensions.storage.unit_of_work import UnitOfWork, Work
from inventory import audit, queries, use_cases
from inventory.imports import merge_stock
from inventory.models import Base

NOTHING_ARRIVED = WireArguments()
# A call to catalog ends this long before the caller gives up, so that the stock can still be set.
SETTING_SECONDS = 0.5
# How many calls wait for catalog at a time. While it does not respond, the other calls keep their workers.
CATALOG_CALLS = 4
UNKNOWN_PRODUCT = (
    "This product is not known to inventory yet, and the catalog does not respond. Nothing was done; try again."
)

_catalog_calls = Bulkhead(CATALOG_CALLS, CATALOG_CALLS, lambda: ServiceUnavailable("Too many calls wait for catalog."))


@final
class InventoryService(operations.Operations, importing.Importing, InventoryRpc):
    """Stock of the products, and what orders reserve of it."""

    name = "inventory"
    row_model, row_keys = "contracts.inventory:ImportStock", ("product_id", "product_sku")
    merges_at_once = True  # orders can change what is reserved between two transactions
    work: UnitOfWork = Work(Base)
    services: Services = RpcClient()

    def merge_rows(self, session: Session, claimed: Claimed, rows: Sequence[Any]) -> Merged:
        by_line = {row.line: row.data for row in rows}
        merged = merge_stock(
            session,
            by_line,
            self.work.publish,
            cause=claimed.cause,
            actor_id=UUID(claimed.actor) if claimed.actor else None,
            all_or_nothing=claimed.mode == "all_or_nothing",
        )
        return Merged(merged.created, merged.updated, merged.unchanged, merged.errors)

    @rpc
    def list_stock(self, wanted: StockFilter, *, actor: Actor = OPERATOR) -> Json[Page[StockView]]:
        return queries.list_stock(self.work.session, wanted, actor)

    @rpc
    def get_stock(self, product_id: UUID, *, actor: Actor = OPERATOR) -> Json[StockView]:
        return queries.get_stock(self.work.session, product_id, actor).to_dict()

    # Catalog is called before the transaction, so that no connection and no lock is held during the call.
    @rpc(transaction=False, admin=True)
    def set_stock(
        self,
        stock: SetStock,
        *,
        actor: Actor = OPERATOR,
        idempotency_key: str | None = None,
        arrived: WireArguments = NOTHING_ARRIVED,
    ) -> Json[SetStockView]:
        def is_known() -> bool:
            return has_stored_result(self.work, "set_stock", idempotency_key, actor)

        products = self._confirmed(stock, unless=is_known)

        def set_now() -> Json[SetStockView]:
            if products is None:
                raise ServiceUnavailable(retry_after=1)  # the stored result was deleted in the meantime
            view, created = use_cases.set_stock(self.work.session, stock, actor, self._call(), products)
            return SetStockView(**dict(view), created=created).to_dict()

        return cast("Json[SetStockView]", run_once(self.work, "set_stock", idempotency_key, arrived, set_now))

    @rpc
    def change_stock_level(
        self,
        product_id: UUID,
        level: SetStockLevel,
        *,
        actor: Actor = OPERATOR,
        if_match: Sequence[str] | None = None,
    ) -> Json[StockView]:
        view = use_cases.change_stock_level(self.work.session, product_id, level, actor, self._call(), if_match)
        return view.to_dict()

    @rpc
    def set_threshold(
        self,
        product_id: UUID,
        threshold: SetThreshold,
        *,
        actor: Actor = OPERATOR,
        if_match: Sequence[str] | None = None,
    ) -> Json[StockView]:
        view = use_cases.set_threshold(self.work.session, product_id, threshold, actor, self._call(), if_match)
        return view.to_dict()

    @rpc(idempotent=True)
    def adjust_stock(
        self,
        product_id: UUID,
        adjustment: AdjustStock,
        *,
        actor: Actor = OPERATOR,
        idempotency_key: str | None = None,
    ) -> Json[StockView]:
        return use_cases.adjust_stock(self.work.session, product_id, adjustment, actor, self._call()).to_dict()

    @rpc
    def list_movements(
        self, product_id: UUID, page: PageRequest, *, actor: Actor = OPERATOR
    ) -> Json[Page[MovementView]]:
        return queries.list_movements(self.work.session, product_id, page, actor)

    @rpc(admin=True)
    def audit_rows(self, ranges: Sequence[Sequence[str | None]], *, actor: Actor = OPERATOR) -> dict[str, Any]:
        return audit.rows(self.work.session, audits.parse_ranges(ranges))

    def audit_own_data(self, session: Session, span: audits.Span) -> operations.OwnAudit:
        """Return what the comparison with the orders needs."""
        return {"checks": audit.checks(session), "fingerprints": audit.held(session, span)}

    def _call(self) -> use_cases.Call:
        return use_cases.Call(current_trace(), self.work.publish)

    def _confirmed(self, stock: SetStock, *, unless: Callable[[], bool]) -> Sequence[ProductView] | None:
        """Return what catalog has of the product; nothing if the replica suffices; None if `unless()` is true.

        A replica can lag behind catalog, so it alone refuses nothing. Only while catalog does not respond it decides.
        Raises ServiceUnavailable if there is none then.
        """
        with self.work.transaction() as session:
            replica = queries.find_replica(session, stock.product_id)
            if use_cases.is_certain(replica, stock):
                return ()
        if unless():
            return None
        try:
            return self._ask_catalog(stock.product_id)
        except (ServiceUnavailable, UpstreamTimeout) as error:
            if replica is not None:
                return ()
            raise ServiceUnavailable(UNKNOWN_PRODUCT, retry_after=1) from error

    def _ask_catalog(self, product_id: UUID) -> Sequence[ProductView]:
        seconds = current_trace().remaining(float(config.get("RPC_TIMEOUT_SECONDS", 4))) - SETTING_SECONDS
        if seconds <= 0:
            raise UpstreamTimeout
        lookup = ProductLookup.parse({"product_ids": [str(product_id)]})
        _catalog_calls.acquire(seconds)
        try:
            found = self.services.within(seconds).catalog.get_products(lookup)
        finally:
            _catalog_calls.release()
        return [ProductView.model_validate(product) for product in found["items"]]

    @handles(ProductCreated, ProductUpdated)
    def on_products(self, events: Sequence[Received[Any]]) -> None:
        """Keep the skus of products, and write changed ones into their stock records."""
        use_cases.replicate_products(self.work.session, [received.event for received in events])

    @handles(OrderCreated, OrderConfirmed, OrderCancelled)
    def on_orders(self, events: Sequence[Received[Any]]) -> None:
        """Reserve the stock of new orders, commit that of confirmed ones, release that of cancelled ones."""
        use_cases.apply_order_events(self.work.session, events, self.work.publish)
