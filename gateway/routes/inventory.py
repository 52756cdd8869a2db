"""/inventory: stock and its ledger."""

from uuid import UUID

from contracts.base import Json, Page, PageRequest
from contracts.imports import ImportOptions, ImportView
from contracts.inventory import (
    AdjustStock,
    MovementView,
    SetStock,
    SetStockLevel,
    SetThreshold,
    StockFilter,
    StockIsReserved,
    StockNotFound,
    StockView,
)
from contracts.orders import ProductUnavailable
from contracts.services import Services
from extensions.http.message.request import Access, HttpRequest
from extensions.http.message.response import Response
from extensions.http.routing.route import route
from extensions.http.routing.streams import StreamResponse
from gateway import uploads
from gateway.live.provider import Live


class Routes:
    """The routes of inventory."""

    services: Services
    streams: Live

    @route(
        "GET",
        "/inventory",
        aliases=("/inventory/all",),
        access=Access.ADMIN,
        service="inventory",
        query=StockFilter,
        response=StockView,
    )
    def list_stock(self, request: HttpRequest[None, StockFilter]) -> Json[Page[StockView]]:
        """List the stock of every product."""
        return self.services.inventory.list_stock(request.query, actor=request.actor)

    @route("POST", "/inventory/import", service="inventory", **uploads.IMPORT)
    def import_stock(self, request: HttpRequest[None, ImportOptions]) -> Response:
        """Set the quantity on hand of many products by a file.

        The file is CSV with a header line, or JSON lines, with the fields `product_id` or `product_sku`, and
        `quantity`. With `all_or_nothing`, at most 10,000 rows are accepted. A large file is worked on after the
        response, which is 202 then: `Location` shows the progress and the result.
        """
        return uploads.import_file(request, self.services.inventory, "/inventory/imports/{id}")

    @route("GET", "/inventory/imports/{import_id}", service="inventory", **uploads.GET_IMPORT)
    def get_stock_import(self, request: HttpRequest, import_id: UUID) -> Json[ImportView]:
        """Show the progress and the result of an import."""
        return self.services.inventory.get_import(import_id, actor=request.actor)

    @route("GET", "/inventory/imports/{import_id}/events", service="inventory", **uploads.FOLLOW_IMPORT)
    def stream_stock_import(self, request: HttpRequest, import_id: UUID) -> StreamResponse:
        """Follow an import: its progress now, and then whenever it changes, as server-sent events.

        The form is that of the import, without its errors. `Last-Event-ID` leaves out what the client has seen. After
        the status `DONE`, `REJECTED` or `FAILED` comes `event: end` with the reason `complete`. After another reason,
        connect again.
        """
        return self.streams.imported(self.services, request, "inventory", import_id)

    @route(
        "GET",
        "/inventory/{product_id}",
        access=Access.ADMIN,
        service="inventory",
        response=StockView,
        errors=(StockNotFound,),
    )
    def get_stock(self, request: HttpRequest, product_id: UUID) -> Json[StockView]:
        """Show the stock of one product."""
        return self.services.inventory.get_stock(product_id, actor=request.actor)

    @route(
        "POST",
        "/inventory",
        aliases=("/inventory/create",),
        access=Access.ADMIN,
        service="inventory",
        body=SetStock,
        response=StockView,
        status=201,
        other_statuses=(200,),
        location="/inventory/{product_id}",
        errors=(StockIsReserved, ProductUnavailable),
        idempotent=True,
    )
    def create_stock(self, request: HttpRequest[SetStock]) -> Response:
        """Set the quantity on hand of a product: 201 if it had no stock record, 200 otherwise."""
        stock = self.services.inventory.set_stock(
            request.body, actor=request.actor, idempotency_key=request.idempotency_key
        )
        created = stock.pop("created")
        return Response(stock, status=201 if created else 200)

    @route(
        "PUT",
        "/inventory/{product_id}",
        access=Access.ADMIN,
        service="inventory",
        body=SetStockLevel,
        response=StockView,
        errors=(StockNotFound, StockIsReserved),
    )
    def set_stock(self, request: HttpRequest[SetStockLevel], product_id: UUID) -> Json[StockView]:
        """Set the quantity on hand of a product."""
        return self.services.inventory.change_stock_level(
            product_id, request.body, **request.precondition, actor=request.actor
        )

    @route(
        "PUT",
        "/inventory/{product_id}/threshold",
        access=Access.ADMIN,
        service="inventory",
        body=SetThreshold,
        response=StockView,
        errors=(StockNotFound,),
    )
    def set_threshold(self, request: HttpRequest[SetThreshold], product_id: UUID) -> Json[StockView]:
        """Set below how many available units the stock of a product is low; null removes the threshold."""
        return self.services.inventory.set_threshold(
            product_id, request.body, **request.precondition, actor=request.actor
        )

    @route(
        "POST",
        "/inventory/{product_id}/adjustments",
        access=Access.ADMIN,
        service="inventory",
        body=AdjustStock,
        response=StockView,
        status=201,
        errors=(StockNotFound, StockIsReserved),
        idempotent=True,
    )
    def adjust_stock(self, request: HttpRequest[AdjustStock], product_id: UUID) -> Json[StockView]:
        """Change the quantity on hand of a product, for a stated reason."""
        return self.services.inventory.adjust_stock(
            product_id, request.body, actor=request.actor, idempotency_key=request.idempotency_key
        )

    @route(
        "GET",
        "/inventory/{product_id}/movements",
        access=Access.ADMIN,
        service="inventory",
        query=PageRequest,
        response=MovementView,
        errors=(StockNotFound,),
    )
    def list_movements(self, request: HttpRequest[None, PageRequest], product_id: UUID) -> Json[Page[MovementView]]:
        """List the ledger of one product, newest entry first."""
        return self.services.inventory.list_movements(product_id, request.query, actor=request.actor)
