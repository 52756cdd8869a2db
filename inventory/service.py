"""The entrypoints of the inventory service: RPC methods and event handlers."""

from collections.abc import Sequence
from typing import Any, final
from uuid import UUID

from sqlalchemy.orm import Session

from contracts.base import OPERATOR, Actor, Json, Page, PageRequest, Received
from contracts.inventory import (
    AdjustStock,
    InventoryRpc,
    MovementView,
    SetStock,
    SetStockLevel,
    SetStockView,
    StockFilter,
    StockView,
)
from contracts.orders import OrderCancelled, OrderConfirmed, OrderCreated
from extensions.messaging.event_handler import handles
from extensions.operations import audits, operations
from extensions.rpc.server import rpc
from extensions.storage.unit_of_work import UnitOfWork, Work
from inventory import audit, queries, use_cases
from inventory.models import Base


@final
class InventoryService(operations.Operations, InventoryRpc):
    """Stock of the products, and what orders reserve of it."""

    name = "inventory"
    work: UnitOfWork = Work(Base)

    @rpc
    def list_stock(self, wanted: StockFilter, *, actor: Actor = OPERATOR) -> Json[Page[StockView]]:
        return queries.list_stock(self.work.session, wanted, actor)

    @rpc
    def get_stock(self, product_id: UUID, *, actor: Actor = OPERATOR) -> Json[StockView]:
        return queries.get_stock(self.work.session, product_id, actor).to_dict()

    @rpc(idempotent=True)
    def set_stock(
        self, stock: SetStock, *, actor: Actor = OPERATOR, idempotency_key: str | None = None
    ) -> Json[SetStockView]:
        view, created = use_cases.set_stock(self.work.session, stock, actor)
        return SetStockView(**dict(view), created=created).to_dict()

    @rpc
    def change_stock_level(
        self,
        product_id: UUID,
        level: SetStockLevel,
        *,
        actor: Actor = OPERATOR,
        if_match: Sequence[str] | None = None,
    ) -> Json[StockView]:
        return use_cases.change_stock_level(self.work.session, product_id, level, actor, if_match).to_dict()

    @rpc(idempotent=True)
    def adjust_stock(
        self,
        product_id: UUID,
        adjustment: AdjustStock,
        *,
        actor: Actor = OPERATOR,
        idempotency_key: str | None = None,
    ) -> Json[StockView]:
        return use_cases.adjust_stock(self.work.session, product_id, adjustment, actor).to_dict()

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

    @handles(OrderCreated, OrderConfirmed, OrderCancelled)
    def on_orders(self, events: Sequence[Received[Any]]) -> None:
        """Reserve the stock of new orders, commit that of confirmed ones, release that of cancelled ones."""
        use_cases.apply_order_events(self.work.session, events, self.work.publish)
