"""/payments: the payments of the orders."""

from uuid import UUID

from contracts.base import Json, Page
from contracts.payments import PaymentFilter, PaymentNotFound, PaymentView
from contracts.services import Services
from extensions.http.message.request import Access, HttpRequest
from extensions.http.routing.route import route


class Routes:
    """The routes of payments."""

    services: Services

    @route(
        "GET",
        "/payments",
        aliases=("/payments/all",),
        access=Access.USER,
        service="payments",
        query=PaymentFilter,
        response=PaymentView,
    )
    def list_payments(self, request: HttpRequest[None, PaymentFilter]) -> Json[Page[PaymentView]]:
        """List the caller's payments, newest first; an administrator sees all."""
        return self.services.payments.list_payments(request.query, actor=request.actor)

    @route(
        "GET",
        "/payments/{payment_id}",
        access=Access.USER,
        service="payments",
        response=PaymentView,
        errors=(PaymentNotFound,),
    )
    def get_payment(self, request: HttpRequest, payment_id: UUID) -> Json[PaymentView]:
        """Show one payment."""
        return self.services.payments.get_payment(payment_id, actor=request.actor)

    @route(
        "GET",
        "/payments/order/{order_id}",
        access=Access.USER,
        service="payments",
        response=PaymentView,
        errors=(PaymentNotFound,),
    )
    def get_payment_of_order(self, request: HttpRequest, order_id: UUID) -> Json[PaymentView]:
        """Show the payment of one order."""
        return self.services.payments.get_payment_of_order(order_id, actor=request.actor)
