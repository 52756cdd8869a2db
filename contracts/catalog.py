"""What catalog says: its events, views, requests and errors."""

from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import ConfigDict, Field, StrictBool

from contracts.base import (
    ABSENT,
    Currency,
    Event,
    Instant,
    Line,
    Money,
    PageRequest,
    Request,
    Sku,
    Text,
    View,
    at_most,
)
from contracts.errors import NotFound, ServiceError

Description = Annotated[Text, Field(max_length=5000)]
MAX_PRODUCTS_PER_LOOKUP = 100

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


class _ProductEvent(Event):
    """The product as it is after the change; a cache keeps the highest `version`."""

    producer: ClassVar[str] = "catalog"

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
    """The body of PATCH /products/{id}: what is absent stays. Null is refused, as no field of a product is optional."""

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
    """What GET /products takes. Seeing inactive products is the administrator's."""

    search: Annotated[Text, Field(min_length=1, max_length=200)] | None = None
    sku: Sku | None = None
    min_price: Money | None = None
    max_price: Money | None = None
    only_active: StrictBool = True
    sort: Literal["created_at", "-created_at", "price", "-price", "name", "-name", "sku", "-sku"] = "-created_at"


class ProductLookup(Request):
    """Which products orders wants to price."""

    product_ids: Annotated[
        tuple[UUID, ...], Field(min_length=1, max_length=MAX_PRODUCTS_PER_LOOKUP), at_most(MAX_PRODUCTS_PER_LOOKUP)
    ]


# Errors


class ProductNotFound(NotFound):
    """No such product, or it is inactive and the caller no administrator."""

    code, status, detail = "PRODUCT_NOT_FOUND", 404, "There is no product with this id."


class SkuAlreadyExists(ServiceError):
    """Another product has this sku."""

    code, status, detail = "SKU_ALREADY_EXISTS", 409, "Another product has this sku."
