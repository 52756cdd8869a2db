"""/orders: placing, reading, cancelling, shipping and delivering orders."""

from typing import cast
from uuid import UUID

from nameko import config

from contracts.base import Json, Page
from contracts.errors import InvalidState, PermissionDenied
from contracts.orders import (
    CancelOrder,
    CreateOrder,
    OrderFilter,
    OrderNotFound,
    OrderView,
    PriceChanged,
    ProductUnavailable,
    ShipOrder,
    TimelineView,
)
from contracts.services import Services
from contracts.users import EmailNotVerified
from extensions.cache.versioned_cache import VersionedCache
from extensions.http.message.request import Access, HttpRequest
from extensions.http.routing.declaration import EVENT_STREAM
from extensions.http.routing.route import route
from extensions.http.routing.streams import StreamResponse
from gateway.live.provider import Live

STREAM_EXAMPLE = """\
retry: 2000

:

event: status
data: {"order_id":"0192d4e1-7c1b-7000-8000-000000000001","status":"CREATED","cancel_reason":null,\
"at":"2026-11-22T09:30:00.000000Z"}

id: 1
data: {"event":"order.created","event_id":"0192d4e1-7c1b-7000-8000-000000000002","service":"orders",\
"at":"2026-11-22T09:30:00.000000Z","data":{"order_id":"0192d4e1-7c1b-7000-8000-000000000001"}}

"""


def require_verified_email(request: HttpRequest, services: Services) -> None:
    """Raise EmailNotVerified unless the caller has verified the address.

    The access token says so if it was verified before; for others, who may have verified it since, users is asked.
    """
    if request.token is not None and request.token.email_verified:
        return
    if not services.users.get_user(request.user_id, actor=request.actor)["email_verified"]:
        raise EmailNotVerified


class Routes:
    """The routes of orders."""

    services: Services
    orders_cache: VersionedCache
    streams: Live

    @route(
        "POST",
        "/orders",
        aliases=("/orders/create-order",),
        access=Access.USER,
        service="orders.create_order",
        body=CreateOrder,
        response=OrderView,
        status=201,
        location="/orders/{id}",
        errors=(PriceChanged, ProductUnavailable, EmailNotVerified),
        idempotent=True,
    )
    def create_order(self, request: HttpRequest[CreateOrder]) -> Json[OrderView]:
        """Place an order; its saga confirms it, or cancels it where stock or payment fails."""
        if config.get("ORDERS_NEED_VERIFIED_EMAIL", False):
            require_verified_email(request, self.services)
        return self.services.orders.create_order(
            request.body, actor=request.actor, idempotency_key=request.idempotency_key
        )

    @route(
        "GET",
        "/orders",
        aliases=("/orders/all",),
        access=Access.USER,
        service="orders",
        query=OrderFilter,
        response=OrderView,
        errors=(PermissionDenied,),
    )
    def list_orders(self, request: HttpRequest[None, OrderFilter]) -> Json[Page[OrderView]]:
        """List the caller's orders, newest first; an administrator sees all."""
        if request.query.user_id is not None:
            request.require_admin()
        return self.services.orders.list_orders(request.query, actor=request.actor)

    @route("GET", "/orders/{order_id}", access=Access.USER, response=OrderView, errors=(OrderNotFound,))
    def get_order(self, request: HttpRequest, order_id: UUID) -> Json[OrderView]:
        """Show one order."""
        order = self.orders_cache.get("order", order_id)
        if order is None or not request.may_access(order.get("user_id")):
            return self.services.orders.get_order(order_id, actor=request.actor)
        return cast("Json[OrderView]", order)

    @route(
        "GET",
        "/orders/{order_id}/events",
        access=Access.USER,
        service="orders",
        produces=EVENT_STREAM,
        example=STREAM_EXAMPLE,
        errors=(OrderNotFound,),
    )
    def stream_order(self, request: HttpRequest, order_id: UUID) -> StreamResponse:
        """Follow one order: the events of its saga so far, then each new one, as server-sent events.

        The `id` of an event is its position in the timeline; `Last-Event-ID` continues after it. Each event has the
        form of an item of the timeline. Before an event that changes the status of the order comes `event: status`.
        The stream ends, with `event: end`, before the access token expires: connect again with a new one.
        """
        return self.streams.order(self.services, request, order_id)

    @route(
        "GET",
        "/orders/{order_id}/timeline",
        access=Access.USER,
        service="orders",
        response=TimelineView,
        errors=(OrderNotFound,),
    )
    def get_timeline(self, request: HttpRequest, order_id: UUID) -> Json[TimelineView]:
        """Show every event of an order's saga, oldest first."""
        return self.services.orders.get_timeline(order_id, actor=request.actor)

    @route(
        "POST",
        "/orders/{order_id}/cancel",
        access=Access.USER,
        service="orders",
        body=CancelOrder,
        body_optional=True,
        response=OrderView,
        status=202,
        errors=(OrderNotFound, InvalidState),
        idempotent=True,
    )
    def cancel_order(self, request: HttpRequest[CancelOrder], order_id: UUID) -> Json[OrderView]:
        """Cancel an order that has not been shipped. The timeline shows the `reason` as `note`."""
        return self.services.orders.cancel_order(
            order_id, request.body, actor=request.actor, idempotency_key=request.idempotency_key
        )

    @route(
        "POST",
        "/orders/{order_id}/ship",
        access=Access.ADMIN,
        service="orders",
        body=ShipOrder,
        body_optional=True,
        response=OrderView,
        errors=(OrderNotFound, InvalidState),
        idempotent=True,
    )
    def ship_order(self, request: HttpRequest[ShipOrder], order_id: UUID) -> Json[OrderView]:
        """Record that an order was shipped."""
        return self.services.orders.ship_order(
            order_id, request.body, actor=request.actor, idempotency_key=request.idempotency_key
        )

    @route(
        "POST",
        "/orders/{order_id}/deliver",
        access=Access.ADMIN,
        service="orders",
        response=OrderView,
        errors=(OrderNotFound, InvalidState),
        idempotent=True,
    )
    def deliver_order(self, request: HttpRequest, order_id: UUID) -> Json[OrderView]:
        """Record that an order was delivered."""
        return self.services.orders.deliver_order(
            order_id, actor=request.actor, idempotency_key=request.idempotency_key
        )
