"""/products: the catalog."""

from typing import Any, cast
from uuid import UUID

from contracts.base import Json, Page
from contracts.catalog import (
    CreateProduct,
    ProductFilter,
    ProductNotFound,
    ProductView,
    SkuAlreadyExists,
    UpdateProduct,
)
from contracts.errors import NotAuthenticated, PermissionDenied
from contracts.services import Services
from extensions.cache.versioned_cache import VersionedCache
from extensions.http.message.request import Access, HttpRequest
from extensions.http.routing.route import route

_CHANGE: dict[str, Any] = {
    "access": Access.ADMIN,
    "service": "catalog",
    "body": UpdateProduct,
    "response": ProductView,
    "errors": (ProductNotFound, SkuAlreadyExists),
}


class Routes:
    """The routes of the catalog service."""

    services: Services
    catalog_cache: VersionedCache

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
        return self.services.catalog.list_products(request.query, actor=request.actor)

    @route("GET", "/products/{product_id}", access=Access.OPTIONAL, response=ProductView, errors=(ProductNotFound,))
    def get_product(self, request: HttpRequest, product_id: UUID) -> Json[ProductView]:
        """Show one product."""
        product = self.catalog_cache.get("product", product_id)
        if product is None or product.get("is_active") is not True:
            return self.services.catalog.get_product(product_id, actor=request.actor)
        return cast("Json[ProductView]", product)

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
