"""/orders: from the basket to the door."""

from typing import Any

from contracts.errors import InvalidState, PermissionDenied
from contracts.orders import (
    CreateOrder,
    OrderFilter,
    OrderNotFound,
    OrderView,
    PriceChanged,
    ProductUnavailable,
    TimelineView,
)
from extensions.http.message.request import Access, HttpRequest
from extensions.http.routing.route import route


class Routes:
    """What orders offers."""

    services: Any
    orders_cache: Any

    @route(
        "POST",
        "/orders",
        aliases=("/orders/create-order",),
        access=Access.USER,
        body=CreateOrder,
        response=OrderView,
        status=201,
        location="/orders/{id}",
        errors=(PriceChanged, ProductUnavailable),
        idempotent=True,
    )
    def create_order(self, request: HttpRequest) -> Any:
        """Place an order; stock and payment decide about it afterwards."""
        return self.services.orders.create_order(
            **request.body, actor=request.actor, idempotency_key=request.idempotency_key
        )

    @route(
        "GET",
        "/orders",
        aliases=("/orders/all",),
        access=Access.USER,
        query=OrderFilter,
        response=OrderView,
        errors=(PermissionDenied,),
    )
    def list_orders(self, request: HttpRequest) -> Any:
        """List the caller's orders, newest first; an administrator sees all."""
        if "user_id" in request.query:
            request.require_admin()
        return self.services.orders.list_orders(**request.query, actor=request.actor)

    @route("GET", "/orders/{order_id}", access=Access.USER, response=OrderView, errors=(OrderNotFound,))
    def get_order(self, request: HttpRequest, order_id: str) -> Any:
        """Show one order."""
        order = self.orders_cache.get("order", order_id)
        if order is None or not request.may_access(order.get("user_id")):
            order = self.services.orders.get_order(order_id=order_id, actor=request.actor)
        return order

    @route("GET", "/orders/{order_id}/timeline", access=Access.USER, response=TimelineView, errors=(OrderNotFound,))
    def get_timeline(self, request: HttpRequest, order_id: str) -> Any:
        """Tell every event of an order's saga, oldest first."""
        return self.services.orders.get_timeline(order_id=order_id, actor=request.actor)

    @route(
        "POST",
        "/orders/{order_id}/cancel",
        access=Access.USER,
        response=OrderView,
        status=202,
        errors=(OrderNotFound, InvalidState),
    )
    def cancel_order(self, request: HttpRequest, order_id: str) -> Any:
        """Call an order off before it ships."""
        return self.services.orders.cancel_order(order_id=order_id, actor=request.actor)

    @route(
        "POST",
        "/orders/{order_id}/ship",
        access=Access.ADMIN,
        response=OrderView,
        errors=(OrderNotFound, InvalidState),
    )
    def ship_order(self, request: HttpRequest, order_id: str) -> Any:
        """Record that an order left the warehouse."""
        return self.services.orders.ship_order(order_id=order_id, actor=request.actor)

    @route(
        "POST",
        "/orders/{order_id}/deliver",
        access=Access.ADMIN,
        response=OrderView,
        errors=(OrderNotFound, InvalidState),
    )
    def deliver_order(self, request: HttpRequest, order_id: str) -> Any:
        """Record that an order arrived."""
        return self.services.orders.deliver_order(order_id=order_id, actor=request.actor)
