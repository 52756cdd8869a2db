"""Every way into inventory: RPC methods and event handlers."""

from contracts.base import Actor, PageRequest
from contracts.ids import parse_id
from contracts.inventory import AdjustStock, SetStock, SetStockLevel, StockFilter
from contracts.orders import OrderCancelled, OrderConfirmed, OrderCreated
from extensions.messaging.event_handler import handles
from extensions.operations import audits, operations
from extensions.rpc.server import rpc
from extensions.storage.unit_of_work import Work
from inventory import audit, queries, use_cases
from inventory.models import Base


class InventoryService(operations.Operations):
    """Stock of the products, and what orders reserve of it."""

    name = "inventory"
    work = Work(Base)

    @rpc
    def list_stock(self, limit=20, cursor=None, actor=None):
        """List the stock of all products, newest stock records first (admin)."""
        wanted = StockFilter.parse({"limit": limit, "cursor": cursor})
        return queries.list_stock(self.work.session, wanted, Actor.of(actor))

    @rpc
    def get_stock(self, product_id, actor=None):
        """Return the stock of one product (admin)."""
        return queries.get_stock(self.work.session, parse_id("product_id", product_id), Actor.of(actor))

    @rpc(idempotent=True)
    def set_stock(self, product_id, product_sku, quantity, actor=None, idempotency_key=None):
        """Set what is on hand of a product, new or not; the answer also has `created` (admin)."""
        request = SetStock.parse({"product_id": product_id, "product_sku": product_sku, "quantity": quantity})
        stock, created = use_cases.set_stock(self.work.session, request, Actor.of(actor))
        return {**stock.to_dict(), "created": created}

    @rpc
    def change_stock_level(self, product_id, quantity, actor=None, if_match=None):
        """Set what is on hand of a product that has a stock record (admin).

        With `if_match`, a list of entity tags, only if the record has one of them.
        """
        request = SetStockLevel.parse({"quantity": quantity})
        product_id = parse_id("product_id", product_id)
        return use_cases.change_stock_level(self.work.session, product_id, request, Actor.of(actor), if_match)

    @rpc(idempotent=True)
    def adjust_stock(self, product_id, delta, reason, actor=None, idempotency_key=None):
        """Change what is on hand of a product by `delta`, for a reason (admin)."""
        request = AdjustStock.parse({"delta": delta, "reason": reason})
        product_id = parse_id("product_id", product_id)
        return use_cases.adjust_stock(self.work.session, product_id, request, Actor.of(actor))

    @rpc
    def list_movements(self, product_id, limit=20, cursor=None, actor=None):
        """List the ledger of one product, the latest entry first (admin)."""
        wanted = PageRequest.parse({"limit": limit, "cursor": cursor})
        product_id = parse_id("product_id", product_id)
        return queries.list_movements(self.work.session, product_id, wanted, Actor.of(actor))

    @rpc
    def audit_rows(self, ranges, actor=None):
        """Tell what is held for each order of some ranges of ids: see orders/reconciliation.py."""
        Actor.of(actor).require_admin()
        return audit.rows(self.work.session, audits.parse_ranges(ranges))

    def audit_own_data(self, session, span):
        """Return what the comparison with the orders needs."""
        return {"checks": audit.checks(session), "fingerprints": audit.held(session, span)}

    @handles(OrderCreated, OrderConfirmed, OrderCancelled)
    def on_orders(self, events):
        """Reserve the stock of new orders, commit that of confirmed ones, give back that of cancelled ones."""
        use_cases.follow_orders(self.work.session, events, self.work.publish)
