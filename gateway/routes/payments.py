"""/payments: the money of an order."""

from typing import Any

from contracts.payments import PaymentFilter, PaymentNotFound, PaymentView
from extensions.http.message.request import Access, HttpRequest
from extensions.http.routing.route import route


class Routes:
    """What payments offers."""

    services: Any

    @route(
        "GET", "/payments", aliases=("/payments/all",), access=Access.USER, query=PaymentFilter, response=PaymentView
    )
    def list_payments(self, request: HttpRequest) -> Any:
        """List the caller's payments, newest first; an administrator sees all."""
        return self.services.payments.list_payments(**request.query, actor=request.actor)

    @route("GET", "/payments/{payment_id}", access=Access.USER, response=PaymentView, errors=(PaymentNotFound,))
    def get_payment(self, request: HttpRequest, payment_id: str) -> Any:
        """Show one payment."""
        return self.services.payments.get_payment(payment_id=payment_id, actor=request.actor)

    @route("GET", "/payments/order/{order_id}", access=Access.USER, response=PaymentView, errors=(PaymentNotFound,))
    def get_payment_of_order(self, request: HttpRequest, order_id: str) -> Any:
        """Show the payment of one order."""
        return self.services.payments.get_payment_of_order(order_id=order_id, actor=request.actor)
