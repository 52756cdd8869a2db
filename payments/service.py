"""The entrypoints of payments: RPC methods, event handlers, and the timer that calls the provider."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, final
from uuid import UUID

from nameko import config
from nameko.extensions import DependencyProvider
from sqlalchemy.orm import Session

from contracts.base import OPERATOR, Actor, Json, Page, Received
from contracts.orders import OrderCancelled, OrderConfirmed, OrderCreated
from contracts.payments import PaymentFilter, PaymentsRpc, PaymentView
from extensions.messaging.event_handler import handles
from extensions.operations import audits, operations
from extensions.rpc.server import rpc
from extensions.storage.periodic import periodic
from extensions.storage.unit_of_work import UnitOfWork, Work
from payments import audit, queries, use_cases
from payments.models import Base
from payments.provider import PaymentProvider

BATCH = 50


class Provider(DependencyProvider):
    """Gives the service the payment provider, with the limit that config.yml states."""

    def setup(self) -> None:
        """Read the limit, so that a wrong one stops the service at its start."""
        self.provider = PaymentProvider(Decimal(str(config["PAYMENT_LIMIT"])))

    def get_dependency(self, _worker_ctx: Any) -> PaymentProvider:
        """Return the provider; all workers share it."""
        return self.provider


@final
class PaymentsService(operations.Operations, PaymentsRpc):
    """Payments of the orders: authorised, captured, voided and refunded at the payment provider."""

    name = "payments"
    work: UnitOfWork = Work(Base)
    provider: PaymentProvider = Provider()

    @rpc
    def list_payments(self, wanted: PaymentFilter, *, actor: Actor = OPERATOR) -> Json[Page[PaymentView]]:
        return queries.list_payments(self.work.session, wanted, actor)

    @rpc
    def get_payment(self, payment_id: UUID, *, actor: Actor = OPERATOR) -> Json[PaymentView]:
        return queries.get_payment(self.work.session, payment_id, actor).to_dict()

    @rpc
    def get_payment_of_order(self, order_id: UUID, *, actor: Actor = OPERATOR) -> Json[PaymentView]:
        return queries.get_payment_of_order(self.work.session, order_id, actor).to_dict()

    @rpc(admin=True)
    def audit_rows(self, ranges: Sequence[Sequence[str | None]], *, actor: Actor = OPERATOR) -> dict[str, Any]:
        return audit.rows(self.work.session, audits.parse_ranges(ranges))

    def audit_own_data(self, session: Session, span: audits.Span) -> operations.OwnAudit:
        """Return what the comparison with the orders needs."""
        return {"checks": [], "fingerprints": audit.held(session, span)}

    @handles(OrderCreated, OrderConfirmed, OrderCancelled)
    def on_orders(self, events: Sequence[Received[Any]]) -> None:
        """Open a payment for new orders, capture it for confirmed ones, void or refund it for cancelled ones."""
        # The provider is called after the commit.
        if use_cases.follow_orders(self.work.session, events, self.provider, self.work.publish):
            self.work.trigger("authorize_pending")

    @periodic(seconds=1.0, transaction=False)
    def authorize_pending(self) -> None:
        """Call the provider for all pending payments. No transaction is open during a call."""
        pending = self._pending_after(None)
        while pending:
            outcomes = use_cases.ask_provider(pending, self.provider)
            with self.work.transaction():
                use_cases.record_outcomes(self.work.session, outcomes, self.provider, self.work.publish)
            pending = self._pending_after(pending[-1].payment_id) if len(pending) == BATCH else []

    def _pending_after(self, payment_id: UUID | None) -> Sequence[queries.Pending]:
        with self.work.transaction():
            return queries.pending_payments(self.work.session, payment_id, BATCH)
