"""The contract of the orders service: its events, requests, views, RPC interface and errors."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Protocol
from uuid import UUID

from pydantic import Field, StrictBool

from contracts.addresses import ShippingAddress
from contracts.base import (
    OPERATOR,
    Actor,
    Currency,
    Event,
    Id,
    Instant,
    Json,
    Money,
    NullIsAbsent,
    Page,
    PageRequest,
    Quantity,
    Request,
    Sku,
    View,
    at_most,
)
from contracts.errors import NotFound, ServiceError
from contracts.operations import ConsistencyRequest, ConsistencyView, OperatedRpc
from contracts.payments import DEFAULT_PAYMENT_METHOD, PaymentMethod
from contracts.text import Line

MAX_LINES = 100
MAX_TIMELINES = 100


class OrderStatus(StrEnum):
    """The states of an order; orders/saga.py has the transitions."""

    CREATED = "CREATED"
    CONFIRMED = "CONFIRMED"
    SHIPPED = "SHIPPED"
    DELIVERED = "DELIVERED"
    CANCELLED = "CANCELLED"


class CancelReason(StrEnum):
    """Why an order was cancelled."""

    OUT_OF_STOCK = "OUT_OF_STOCK"
    PAYMENT_FAILED = "PAYMENT_FAILED"
    TIMEOUT = "TIMEOUT"
    USER = "USER"
    ADMIN = "ADMIN"


# Events


class OrderLine(View):
    """One product of an order, with its price at the time of the order."""

    product_id: UUID
    product_sku: Sku
    quantity: Quantity
    price_snapshot: Money


class OrderCreated(Event):
    """An order was accepted. Its stock must be reserved, and its payment authorised."""

    event_type: ClassVar[str] = "order.created"
    producer: ClassVar[str] = "orders"
    consumers: ClassVar[tuple[str, ...]] = ("inventory", "payments", "notifications")

    order_id: UUID
    user_id: UUID
    total_amount: Money
    currency: Currency
    items: tuple[OrderLine, ...]
    # Not PaymentMethod: if this version of a consumer does not know the method, the provider refuses it.
    payment_method: str = DEFAULT_PAYMENT_METHOD


class OrderConfirmed(Event):
    """The stock is reserved and the payment authorised. The stock must be committed, and the payment captured."""

    event_type: ClassVar[str] = "order.confirmed"
    producer: ClassVar[str] = "orders"
    consumers: ClassVar[tuple[str, ...]] = ("inventory", "payments", "notifications")

    order_id: UUID
    user_id: UUID
    total_amount: Money
    currency: Currency


class OrderCancelled(Event):
    """The order was cancelled. Its stock must be released or returned, and its payment voided or refunded."""

    event_type: ClassVar[str] = "order.cancelled"
    producer: ClassVar[str] = "orders"
    consumers: ClassVar[tuple[str, ...]] = ("inventory", "payments", "notifications")

    order_id: UUID
    user_id: UUID
    reason: CancelReason


class OrderShipped(Event):
    """The order left the warehouse, with this carrier and tracking number if they were stated."""

    event_type: ClassVar[str] = "order.shipped"
    producer: ClassVar[str] = "orders"
    consumers: ClassVar[tuple[str, ...]] = ("notifications",)

    order_id: UUID
    user_id: UUID
    carrier: str | None = None
    tracking_number: str | None = None

    def to_json(self) -> str:
        """The message body. What was not stated is absent, as in events of version 0.1.0."""
        return self.model_dump_json(exclude_none=True)


class OrderDelivered(Event):
    """The order arrived."""

    event_type: ClassVar[str] = "order.delivered"
    producer: ClassVar[str] = "orders"
    consumers: ClassVar[tuple[str, ...]] = ("notifications",)

    order_id: UUID
    user_id: UUID


STATUS_EVENTS: Mapping[str, OrderStatus] = {
    OrderCreated.event_type: OrderStatus.CREATED,
    OrderConfirmed.event_type: OrderStatus.CONFIRMED,
    OrderCancelled.event_type: OrderStatus.CANCELLED,
    OrderShipped.event_type: OrderStatus.SHIPPED,
    OrderDelivered.event_type: OrderStatus.DELIVERED,
}
"""The status that an order has after each event that changes it."""


# Requests


class NewOrderItem(Request):
    """One line of a new order. A price or SKU that the client sends is only compared with that of the catalog."""

    product_id: Id
    quantity: Quantity
    price_snapshot: Money | None = None
    product_sku: Sku | None = None


class CreateOrder(Request):
    """The body of POST /orders."""

    items: Annotated[tuple[NewOrderItem, ...], Field(min_length=1, max_length=MAX_LINES), at_most(MAX_LINES)]
    total_amount: Money | None = None
    payment_method: PaymentMethod = DEFAULT_PAYMENT_METHOD
    """Chooses what the simulated payment provider does. Refused in production with any other provider."""
    shipping_address: ShippingAddress | None = None


class ShipOrder(NullIsAbsent):
    """The body of POST /orders/{order_id}/ship, which may be left out. The customer is told what it states."""

    carrier: Annotated[Line, Field(max_length=100)] | None = None
    tracking_number: Annotated[Line, Field(max_length=100)] | None = None


class CancelOrder(NullIsAbsent):
    """The body of POST /orders/{order_id}/cancel, which may be left out.

    The timeline shows `reason` as the `note` of the cancellation. It may be personal data: only the orders service
    stores it, and no event contains it.
    """

    reason: Line | None = None


class OrderFilter(PageRequest):
    """The query of GET /orders. `user_id` is for administrators."""

    status: OrderStatus | None = None
    created_after: Instant | None = None
    created_before: Instant | None = None
    user_id: Id | None = None


class SagaFilter(PageRequest):
    """The query of GET /admin/sagas. `stuck`: only orders that have not changed for longer than the deadline."""

    stuck: StrictBool = False


class TimelinePosition(Request):
    """An order, and how many events of its timeline the caller knows."""

    order_id: Id
    known: Annotated[int, Field(ge=0)] = 0


class TimelinePositions(Request):
    """What the caller knows of several timelines."""

    orders: Annotated[tuple[TimelinePosition, ...], Field(min_length=1, max_length=MAX_TIMELINES)]


# Views


class OrderItemView(View):
    """One line of an order."""

    product_id: UUID
    product_sku: str
    quantity: int
    price_snapshot: Money
    line_total: Money


class OrderView(View):
    """An order. `stock_status` and `payment_status` are `PENDING` before the first reply of inventory and payments."""

    id: UUID
    user_id: UUID
    status: OrderStatus
    cancel_reason: CancelReason | None
    total_amount: Money
    currency: str
    items: tuple[OrderItemView, ...]
    stock_status: Literal["PENDING", "RESERVED", "FAILED", "COMMITTED", "RELEASED", "RETURNED"]
    payment_status: Literal["PENDING", "AUTHORIZED", "FAILED", "CAPTURED", "VOIDED", "PARTIALLY_REFUNDED", "REFUNDED"]
    shipping_address: ShippingAddress | None
    carrier: str | None
    tracking_number: str | None
    version: int
    created_at: Instant
    updated_at: Instant


class TimelineEntry(View):
    """One event of an order's saga, as the orders service recorded it.

    `data` is the body of the event. That of `order.cancelled` also has the `note` of who cancelled the order.
    """

    event: str
    event_id: UUID
    service: str
    at: Instant
    data: dict[str, Any]


class TimelineView(View):
    """Every event of an order's saga, oldest first."""

    items: tuple[TimelineEntry, ...]


class ExportedOrder(OrderView):
    """An order with everything else that is kept about it, for its user."""

    payment_method: str
    timeline: tuple[TimelineEntry, ...]


class PositionedEntry(TimelineEntry):
    """An event of an order's saga with its position in the timeline of the order: 1 for the first, without gaps."""

    order_id: UUID
    position: int


class TimelinesView(View):
    """Events of the sagas of several orders, those of an order oldest first. `is_complete`: there are no others."""

    items: tuple[PositionedEntry, ...]
    is_complete: bool


class SagaView(View):
    """An order that waits for a service. `awaits` says for which and for what, `since` when it changed last."""

    id: UUID
    user_id: UUID
    status: OrderStatus
    stock_status: str
    payment_status: str
    awaits: tuple[str, ...]
    since: Instant
    created_at: Instant
    deadline_at: Instant


# RPC


class OrdersRpc(OperatedRpc, Protocol):
    """RPC methods of the orders service."""

    def create_order(
        self, order: CreateOrder, *, actor: Actor = OPERATOR, idempotency_key: str | None = None
    ) -> Json[OrderView]:
        """Price an order by the catalog, store it, and start its saga. Returns the order with status CREATED.

        Raises ProductUnavailable, PriceChanged, Overloaded.
        """

    def get_order(self, order_id: UUID, *, actor: Actor = OPERATOR) -> Json[OrderView]:
        """Return an order. Raises OrderNotFound, also if the order belongs to another user."""

    def list_orders(self, wanted: OrderFilter, *, actor: Actor = OPERATOR) -> Json[Page[OrderView]]:
        """List the actor's orders, newest first. An administrator gets those of all users."""

    def get_timeline(self, order_id: UUID, *, actor: Actor = OPERATOR) -> Json[TimelineView]:
        """Return every event of an order's saga, oldest first. Raises OrderNotFound."""

    def export_orders(self, user_id: UUID, page: PageRequest, *, actor: Actor = OPERATOR) -> Json[Page[ExportedOrder]]:
        """List all that is kept about the orders of a user, newest first. Raises PermissionDenied for another user."""

    def get_timelines(self, wanted: TimelinePositions, *, actor: Actor = OPERATOR) -> Json[TimelinesView]:
        """Return what several timelines have beyond the known events (admin). An unknown order has nothing."""

    def cancel_order(
        self,
        order_id: UUID,
        cancellation: CancelOrder,
        *,
        actor: Actor = OPERATOR,
        idempotency_key: str | None = None,
    ) -> Json[OrderView]:
        """Cancel an order that has not been shipped. Raises OrderNotFound, InvalidState."""

    def ship_order(
        self, order_id: UUID, shipment: ShipOrder, *, actor: Actor = OPERATOR, idempotency_key: str | None = None
    ) -> Json[OrderView]:
        """Record that a confirmed order was shipped (admin). Raises OrderNotFound, InvalidState."""

    def deliver_order(
        self, order_id: UUID, *, actor: Actor = OPERATOR, idempotency_key: str | None = None
    ) -> Json[OrderView]:
        """Record that a shipped order was delivered (admin). Raises OrderNotFound, InvalidState."""

    def list_sagas(self, wanted: SagaFilter, *, actor: Actor = OPERATOR) -> Json[Page[SagaView]]:
        """List the orders that wait for a service, with what they wait for (admin)."""

    def list_stuck(self, wanted: PageRequest, *, actor: Actor = OPERATOR) -> Json[Page[SagaView]]:
        """List the orders that have waited for a service for longer than the saga's deadline (admin)."""

    def check_consistency(self, wanted: ConsistencyRequest, *, actor: Actor = OPERATOR) -> Json[ConsistencyView]:
        """Compare the records of all services, and count what breaks an invariant (admin)."""


# Errors


class OrderNotFound(NotFound):
    """The order does not exist, or belongs to another user."""

    code, status, detail = "ORDER_NOT_FOUND", 404, "There is no order with this id."


class PriceChanged(ServiceError):
    """A price or total that the client sent is not, or no longer, correct."""

    code, status = "PRICE_CHANGED", 409
    detail = "A price has changed. Read the products again and repeat the order with the new prices."


class ProductUnavailable(ServiceError):
    """A product is unknown or no longer sold."""

    code, status, detail = "PRODUCT_UNAVAILABLE", 422, "A product is unknown or no longer sold."
