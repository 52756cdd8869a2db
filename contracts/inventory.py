"""The contract of the inventory service: its events, requests, views, RPC interface and errors."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Protocol, Self
from uuid import UUID

from pydantic import AfterValidator, Field, model_validator

from contracts.base import (
    MAX_STOCK,
    OPERATOR,
    WHOLE,
    Actor,
    Event,
    Id,
    Instant,
    Json,
    Page,
    PageRequest,
    Request,
    Sku,
    StockLevel,
    View,
)
from contracts.errors import NotFound, ServiceError
from contracts.imports import ImportingRpc
from contracts.operations import ParticipantRpc
from contracts.text import Line

# Events


class StockReserved(Event):
    """Every line of the order is reserved."""

    event_type: ClassVar[str] = "inventory.stock_reserved"
    producer: ClassVar[str] = "inventory"
    consumers: ClassVar[tuple[str, ...]] = ("orders",)

    order_id: UUID


class Shortage(View):
    """A product of which there is not enough."""

    product_id: UUID
    requested: int
    available: int


class StockFailed(Event):
    """Not every line could be reserved, so none is."""

    event_type: ClassVar[str] = "inventory.stock_failed"
    producer: ClassVar[str] = "inventory"
    consumers: ClassVar[tuple[str, ...]] = ("orders",)

    order_id: UUID
    reason: str
    shortages: tuple[Shortage, ...]


class StockCommitted(Event):
    """The reserved stock is committed: it is no longer on hand."""

    event_type: ClassVar[str] = "inventory.stock_committed"
    producer: ClassVar[str] = "inventory"
    consumers: ClassVar[tuple[str, ...]] = ("orders",)

    order_id: UUID


class StockReleased(Event):
    """The stock of a cancelled order is available again; `returned` if it had been committed before."""

    event_type: ClassVar[str] = "inventory.stock_released"
    producer: ClassVar[str] = "inventory"
    consumers: ClassVar[tuple[str, ...]] = ("orders",)

    order_id: UUID
    returned: bool = False


class StockLow(Event):
    """The available units of a product fell below its threshold. Published again after they were at or above it."""

    event_type: ClassVar[str] = "inventory.stock_low"
    producer: ClassVar[str] = "inventory"
    consumers: ClassVar[tuple[str, ...]] = ("notifications",)

    product_id: UUID
    product_sku: str
    available: int
    threshold: int


# Requests


def _not_zero(value: int) -> int:
    if value == 0:
        message = "must not be 0: that would change nothing"
        raise ValueError(message)
    return value


class SetStock(Request):
    """Sets `on_hand` of a product; the body of POST /inventory. The sku is the catalog's: a stated one is compared."""

    product_id: Id
    product_sku: Sku | None = None
    quantity: StockLevel


class SetStockLevel(Request):
    """Sets `on_hand` of a product that has a stock record; the body of PUT /inventory/{product_id}."""

    quantity: StockLevel


class AdjustStock(Request):
    """Changes `on_hand` by `delta`; the body of POST /inventory/{product_id}/adjustments."""

    delta: Annotated[
        int,
        Field(strict=True, ge=-MAX_STOCK, le=MAX_STOCK, json_schema_extra={"not": {"const": 0}}),
        WHOLE,
        AfterValidator(_not_zero),
    ]
    reason: Line


class SetThreshold(Request):
    """The body of PUT /inventory/{product_id}/threshold: the stock is low while fewer units are available.

    Null removes the threshold.
    """

    low_stock: StockLevel | None


class ImportStock(Request):
    """A row of an import of stock: sets `on_hand` of a product, which is stated by its id, by its sku, or by both."""

    product_id: Id | None = None
    product_sku: Sku | None = None
    quantity: StockLevel

    @model_validator(mode="after")
    def _states_a_product(self) -> Self:
        if self.product_id is None and self.product_sku is None:
            message = "must state product_id or product_sku"
            raise ValueError(message)
        return self


class StockFilter(PageRequest):
    """The query of GET /inventory."""


# Views


class StockView(View):
    """The stock of one product. `on_hand` includes `reserved`; `available` is the difference.

    `is_low`: fewer units than `low_stock` are available. `low_stock` is null without a threshold.
    """

    product_id: UUID
    product_sku: str
    on_hand: int
    reserved: int
    available: int
    low_stock: int | None
    is_low: bool
    updated_at: Instant


class MovementView(View):
    """One entry of the stock ledger: what changed, why, and the balance after it.

    `reason` is that of the administrator, or of the order's cancellation. `actor_id` is the administrator; null for an
    order and for the operator. `event_id` is the message that caused the entry, null if it was a request; `request_id`
    is the request that the chain of causes began with. Both are null in entries of version 0.1.0.
    """

    id: UUID
    product_id: UUID
    kind: str
    on_hand_delta: int
    reserved_delta: int
    on_hand: int
    reserved: int
    order_id: UUID | None
    reason: str | None
    actor_id: UUID | None
    event_id: UUID | None
    request_id: str | None
    created_at: Instant


class SetStockView(StockView):
    """The stock of one product after it was set; `created` if the product had no stock record before."""

    created: bool


# RPC


class InventoryRpc(ImportingRpc, ParticipantRpc, Protocol):
    """RPC methods of inventory, all for administrators."""

    def list_stock(self, wanted: StockFilter, *, actor: Actor = OPERATOR) -> Json[Page[StockView]]:
        """List the stock of all products, newest stock records first."""

    def get_stock(self, product_id: UUID, *, actor: Actor = OPERATOR) -> Json[StockView]:
        """Return the stock of one product. Raises StockNotFound."""

    def set_stock(
        self, stock: SetStock, *, actor: Actor = OPERATOR, idempotency_key: str | None = None
    ) -> Json[SetStockView]:
        """Set the quantity on hand of a product. Creates its stock record if there is none.

        Raises ProductUnavailable for a product that catalog does not have, ValidationFailed if its sku is another than
        `product_sku`, StockIsReserved. Raises ServiceUnavailable if the product is not known yet and catalog does not
        respond.
        """

    def change_stock_level(
        self,
        product_id: UUID,
        level: SetStockLevel,
        *,
        actor: Actor = OPERATOR,
        if_match: Sequence[str] | None = None,
    ) -> Json[StockView]:
        """Set the quantity on hand of a product that has a stock record.

        Raises StockNotFound, StockIsReserved, and PreconditionFailed if the record has none of the entity tags
        `if_match`.
        """

    def adjust_stock(
        self,
        product_id: UUID,
        adjustment: AdjustStock,
        *,
        actor: Actor = OPERATOR,
        idempotency_key: str | None = None,
    ) -> Json[StockView]:
        """Add a positive or negative difference to the quantity on hand. Raises StockNotFound, StockIsReserved."""

    def set_threshold(
        self,
        product_id: UUID,
        threshold: SetThreshold,
        *,
        actor: Actor = OPERATOR,
        if_match: Sequence[str] | None = None,
    ) -> Json[StockView]:
        """Set below how many available units the stock of a product is low, or remove the threshold.

        Raises StockNotFound, and PreconditionFailed if the record has none of the entity tags `if_match`.
        """

    def list_movements(
        self, product_id: UUID, page: PageRequest, *, actor: Actor = OPERATOR
    ) -> Json[Page[MovementView]]:
        """List the ledger of one product, the latest entry first. Raises StockNotFound."""


# Errors


class StockNotFound(NotFound):
    """The product has no stock record."""

    code, status, detail = "STOCK_NOT_FOUND", 404, "There is no stock record for this product."


class StockIsReserved(ServiceError):
    """The change would leave less on hand than is reserved."""

    code, status, detail = "STOCK_RESERVED", 409, "Less would be on hand than is reserved for orders."
