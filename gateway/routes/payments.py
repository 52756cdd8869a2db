"""/payments: the payments of the orders."""

from uuid import UUID

from contracts.base import Json, Page, PageRequest
from contracts.errors import InvalidState
from contracts.payments import AttemptView, PaymentFilter, PaymentNotFound, PaymentView, RefundPayment, RefundView
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

    @route(
        "POST",
        "/payments/{payment_id}/refund",
        access=Access.ADMIN,
        service="payments",
        body=RefundPayment,
        response=RefundView,
        status=202,
        errors=(PaymentNotFound, InvalidState),
        idempotent=True,
    )
    def refund_payment(self, request: HttpRequest[RefundPayment], payment_id: UUID) -> Json[RefundView]:
        """Refund a captured payment: a part of it, or all that is left. The provider makes the refund afterwards."""
        return self.services.payments.refund_payment(
            payment_id, request.body, actor=request.actor, idempotency_key=request.idempotency_key
        )

    @route(
        "GET",
        "/payments/{payment_id}/refunds",
        access=Access.ADMIN,
        service="payments",
        query=PageRequest,
        response=RefundView,
        errors=(PaymentNotFound,),
    )
    def list_refunds(self, request: HttpRequest[None, PageRequest], payment_id: UUID) -> Json[Page[RefundView]]:
        """List the refunds of one payment, newest first."""
        return self.services.payments.list_refunds(payment_id, request.query, actor=request.actor)

    @route(
        "GET",
        "/payments/{payment_id}/attempts",
        access=Access.ADMIN,
        service="payments",
        query=PageRequest,
        response=AttemptView,
        errors=(PaymentNotFound,),
    )
    def list_attempts(self, request: HttpRequest[None, PageRequest], payment_id: UUID) -> Json[Page[AttemptView]]:
        """List the calls of the payment provider about one payment, newest first, also those that failed."""
        return self.services.payments.list_attempts(payment_id, request.query, actor=request.actor)
