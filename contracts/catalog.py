"""The contract of the catalog service: its events, requests, views, RPC interface and errors."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Protocol
from uuid import UUID

from pydantic import ConfigDict, Field, StrictBool

from contracts.base import (
    ABSENT,
    OPERATOR,
    Actor,
    Currency,
    Event,
    Instant,
    Json,
    Money,
    Page,
    PageRequest,
    Request,
    Sku,
    View,
    at_most,
)
from contracts.errors import NotFound, ServiceError
from contracts.imports import ImportingRpc
from contracts.text import Line, Text

Description = Annotated[Text, Field(max_length=5000)]
MAX_PRODUCTS_PER_LOOKUP = 100
EXPORT_PAGE = 500

# Views and events


class ProductView(View):
    """A product. `version` counts its changes."""

    id: UUID
    sku: str
    name: str
    description: str
    price: Money
    currency: str
    is_active: bool
    version: int
    created_at: Instant
    updated_at: Instant


class ProductsView(View):
    """Several products, in no particular order."""

    items: tuple[ProductView, ...]


class _ProductEvent(Event):
    """The product after the change. A consumer keeps the highest `version`; a version may come more than once."""

    producer: ClassVar[str] = "catalog"
    consumers: ClassVar[tuple[str, ...]] = ("orders", "inventory")

    id: UUID
    sku: str
    name: str
    description: str
    price: Money
    currency: Currency
    is_active: bool
    version: int
    created_at: Instant
    updated_at: Instant


class ProductCreated(_ProductEvent):
    """A product is new in the catalog."""

    event_type: ClassVar[str] = "product.created"


class ProductUpdated(_ProductEvent):
    """A product has changed."""

    event_type: ClassVar[str] = "product.updated"


# Requests


class CreateProduct(Request):
    """The body of POST /products."""

    sku: Sku
    name: Line
    price: Money
    description: Description = ""
    is_active: StrictBool = True


class UpdateProduct(Request):
    """The body of PATCH /products/{id}. Absent fields do not change. Null is refused: every field has a value."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    sku: Sku = ABSENT
    name: Line = ABSENT
    price: Money = ABSENT
    description: Description = ABSENT
    is_active: StrictBool = ABSENT

    @property
    def changes(self) -> dict[str, Any]:
        """The stated fields and their new values."""
        return {field: getattr(self, field) for field in self.model_fields_set}


class ProductFilter(PageRequest):
    """The query of GET /products. Only administrators may ask for inactive products.

    `search` finds products: each of its words begins a word of the name, the sku or the description. If there are none,
    it finds those with the whole text as a part of one of these, and if there are none, those with similar words. Case,
    accents, dotted and dotless i, and the normal form of Unicode make no difference.

    Without `sort`, a search lists the best matches first, and any other list the newest products. If there are more
    than 1,000 matches, those whose names begin with the search come first, then the newest.
    """

    search: Annotated[Text, Field(min_length=1, max_length=200)] | None = None
    sku: Sku | None = None
    min_price: Money | None = None
    max_price: Money | None = None
    only_active: StrictBool = True
    sort: Literal["created_at", "-created_at", "price", "-price", "name", "-name", "sku", "-sku"] | None = None


class ExportOptions(Request):
    """The query of GET /products/export. Without `format`, the Accept header chooses."""

    format: Literal["csv", "json_lines"] | None = None


class ProductLookup(Request):
    """The products that the orders service needs for pricing."""

    product_ids: Annotated[
        tuple[UUID, ...], Field(min_length=1, max_length=MAX_PRODUCTS_PER_LOOKUP), at_most(MAX_PRODUCTS_PER_LOOKUP)
    ]


# RPC


class CatalogRpc(ImportingRpc, Protocol):
    """RPC methods of catalog."""

    def list_products(self, wanted: ProductFilter, *, actor: Actor = OPERATOR) -> Json[Page[ProductView]]:
        """List products. Raises PermissionDenied for inactive ones unless the actor is an administrator."""

    def get_product(self, product_id: UUID, *, actor: Actor = OPERATOR) -> Json[ProductView]:
        """Return a product. Raises ProductNotFound, also for an inactive one unless the actor is an administrator."""

    def get_products(self, wanted: ProductLookup) -> Json[ProductsView]:
        """Return the products with these ids, active or not. Ids that do not exist are left out."""

    def export_products(self, after: UUID | None = None, *, actor: Actor = OPERATOR) -> Json[ProductsView]:
        """Return the next products in the order of their ids, active or not, at most EXPORT_PAGE (admin)."""

    def create_product(
        self, product: CreateProduct, *, actor: Actor = OPERATOR, idempotency_key: str | None = None
    ) -> Json[ProductView]:
        """Add a product (admin). Raises SkuAlreadyExists."""

    def update_product(
        self,
        product_id: UUID,
        *,
        actor: Actor = OPERATOR,
        if_match: Sequence[str] | None = None,
        changes: UpdateProduct,
    ) -> Json[ProductView]:
        """Change the stated fields of a product (admin).

        `if_match` are entity tags, one of which the product must have. Raises ProductNotFound, SkuAlreadyExists,
        PreconditionFailed.
        """


# Errors


class ProductNotFound(NotFound):
    """The product does not exist, or is inactive and the actor is no administrator."""

    code, status, detail = "PRODUCT_NOT_FOUND", 404, "There is no product with this id."


class SkuAlreadyExists(ServiceError):
    """Another product has this sku."""

    code, status, detail = "SKU_ALREADY_EXISTS", 409, "Another product has this sku."
