"""/products: the catalog."""

from contextlib import nullcontext
from typing import Any, cast
from uuid import UUID

from contracts.base import Json, Page
from contracts.catalog import (
    CreateProduct,
    ExportOptions,
    ProductFilter,
    ProductNotFound,
    ProductView,
    SkuAlreadyExists,
    UpdateProduct,
)
from contracts.errors import NotAuthenticated, PermissionDenied
from contracts.imports import CSV, JSON_LINES, ImportOptions, ImportView
from contracts.services import Services
from extensions.cache.versioned_cache import VersionedCache
from extensions.http.message import media_types
from extensions.http.message.request import Access, HttpRequest
from extensions.http.message.response import Response
from extensions.http.routing.route import route
from extensions.http.routing.streams import StreamResponse
from gateway import searches, uploads
from gateway.live.provider import Live
from gateway.product_export import ProductExport

_CHANGE: dict[str, Any] = {
    "access": Access.ADMIN,
    "service": "catalog",
    "body": UpdateProduct,
    "response": ProductView,
    "errors": (ProductNotFound, SkuAlreadyExists),
}


def _public(product: dict[str, Any] | None) -> Json[ProductView] | None:
    """Return a cached product that everyone may see."""
    return cast("Json[ProductView]", product) if product and product.get("is_active") is True else None


def _wanted_type(request: HttpRequest[None, ExportOptions]) -> str:
    if request.query.format is not None:
        return CSV if request.query.format == "csv" else JSON_LINES
    return CSV if media_types.accepts(request.headers.get("accept", ""), CSV) else JSON_LINES


class Routes:
    """The routes of the catalog service."""

    services: Services
    catalog_cache: VersionedCache
    streams: Live

    @route(
        "GET",
        "/products",
        aliases=("/products/all",),
        access=Access.OPTIONAL,
        service="catalog",
        query=ProductFilter,
        response=ProductView,
        errors=(NotAuthenticated, PermissionDenied),
    )
    def list_products(self, request: HttpRequest[None, ProductFilter]) -> Json[Page[ProductView]]:
        """Search and sort the products; only an administrator sees inactive ones."""
        if not request.query.only_active:
            request.require_admin()
        with nullcontext() if request.query.search is None else searches.turn(request.remaining()):
            return self.services.catalog.list_products(request.query, actor=request.actor)

    @route("POST", "/products/import", service="catalog", **uploads.IMPORT)
    def import_products(self, request: HttpRequest[None, ImportOptions]) -> Response:
        """Create and change many products by a file.

        The file is CSV with a header line, or JSON lines, with the fields of `POST /products`. A product is found by
        its sku; a field that a row does not state stays as it is. A large file is worked on after the response, which
        is 202 then: `Location` shows the progress and the result.
        """
        return uploads.import_file(request, self.services.catalog, "/products/imports/{id}")

    @route("GET", "/products/imports/{import_id}", service="catalog", **uploads.GET_IMPORT)
    def get_product_import(self, request: HttpRequest, import_id: UUID) -> Json[ImportView]:
        """Show the progress and the result of an import."""
        return self.services.catalog.get_import(import_id, actor=request.actor)

    @route("GET", "/products/imports/{import_id}/events", service="catalog", **uploads.FOLLOW_IMPORT)
    def stream_product_import(self, request: HttpRequest, import_id: UUID) -> StreamResponse:
        """Follow an import: its progress now, and then whenever it changes, as server-sent events.

        The form is that of the import, without its errors. `Last-Event-ID` leaves out what the client has seen. After
        the status `DONE`, `REJECTED` or `FAILED` comes `event: end` with the reason `complete`. After another reason,
        connect again.
        """
        return self.streams.imported(self.services, request, "catalog", import_id)

    @route(
        "GET",
        "/products/export",
        access=Access.ADMIN,
        service="catalog",
        query=ExportOptions,
        produces=CSV,
        also_produces=(JSON_LINES,),
        streamed=True,
    )
    def export_products(self, request: HttpRequest[None, ExportOptions]) -> Response:
        """Send all products as a file that can be imported again.

        It is CSV, or JSON lines if `format` or `Accept` says so.
        """
        media_type = _wanted_type(request)
        response = Response(headers={"Content-Type": media_type})
        response.pieces = ProductExport(self.services.catalog, request.actor, media_type)
        return response

    @route("GET", "/products/{product_id}", access=Access.OPTIONAL, response=ProductView, errors=(ProductNotFound,))
    def get_product(self, request: HttpRequest, product_id: UUID) -> Json[ProductView]:
        """Show one product."""
        product = _public(self.catalog_cache.get("product", product_id))
        if product is not None:
            return product
        # Administrators see inactive products, so they share no call with others.
        return self.catalog_cache.load(
            "product",
            f"{product_id}, {request.actor.is_admin}",
            lambda: self.services.catalog.get_product(product_id, actor=request.actor),
            read=lambda: _public(self.catalog_cache.find("product", product_id)),
        )

    @route(
        "POST",
        "/products",
        aliases=("/products/create",),
        access=Access.ADMIN,
        service="catalog",
        body=CreateProduct,
        response=ProductView,
        status=201,
        location="/products/{id}",
        errors=(SkuAlreadyExists,),
        idempotent=True,
    )
    def create_product(self, request: HttpRequest[CreateProduct]) -> Json[ProductView]:
        """Add a product to the catalog."""
        return self.services.catalog.create_product(
            request.body, actor=request.actor, idempotency_key=request.idempotency_key
        )

    @route("PUT", "/products/{product_id}", aliases=("/products/{product_id}/update",), **_CHANGE)
    def replace_product(self, request: HttpRequest[UpdateProduct], product_id: UUID) -> Json[ProductView]:
        """Change a product; what is not stated stays as it is."""
        return self._change(request, product_id)

    @route("PATCH", "/products/{product_id}", **_CHANGE)
    def update_product(self, request: HttpRequest[UpdateProduct], product_id: UUID) -> Json[ProductView]:
        """Change a product; what is not stated stays as it is."""
        return self._change(request, product_id)

    def _change(self, request: HttpRequest[UpdateProduct], product_id: UUID) -> Json[ProductView]:
        return self.services.catalog.update_product(
            product_id, changes=request.body, **request.precondition, actor=request.actor
        )
