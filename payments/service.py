"""Every way into payments: RPC methods, event handlers, and the timer that asks the provider."""

from decimal import Decimal

from nameko import config
from nameko.extensions import DependencyProvider

from contracts.base import Actor
from contracts.ids import parse_id
from contracts.orders import OrderCancelled, OrderConfirmed, OrderCreated
from contracts.payments import PaymentFilter
from extensions.messaging.event_handler import handles
from extensions.operations import audits, operations
from extensions.rpc.server import rpc
from extensions.storage.periodic import periodic
from extensions.storage.unit_of_work import Work
from payments import audit, queries, use_cases
from payments.models import Base
from payments.provider import PaymentProvider

BATCH = 50


class Provider(DependencyProvider):
    """Gives the service the payment provider, with the limit that config.yml states."""

    def setup(self):
        """Read the limit, so that a wrong one stops the service at its start."""
        self.provider = PaymentProvider(Decimal(str(config["PAYMENT_LIMIT"])))

    def get_dependency(self, worker_ctx):
        """Return the provider; all workers share it."""
        return self.provider


class PaymentsService(operations.Operations):
    """What the orders cost: authorised, captured, voided and refunded at the payment provider."""

    name = "payments"
    work = Work(Base)
    provider = Provider()

    @rpc
    def list_payments(self, order_id=None, status=None, limit=20, cursor=None, actor=None):
        """List payments, newest first: one's own, all for an admin."""
        wanted = PaymentFilter.parse({"order_id": order_id, "status": status, "limit": limit, "cursor": cursor})
        return queries.list_payments(self.work.session, wanted, Actor.of(actor))

    @rpc
    def get_payment(self, payment_id, actor=None):
        """Return one payment."""
        return queries.get_payment(self.work.session, parse_id("payment_id", payment_id), Actor.of(actor))

    @rpc
    def get_payment_of_order(self, order_id, actor=None):
        """Return the payment of an order."""
        return queries.get_payment_of_order(self.work.session, parse_id("order_id", order_id), Actor.of(actor))

    @rpc
    def audit_rows(self, ranges, actor=None):
        """Tell what is held for each order of some ranges of ids: see orders/reconciliation.py."""
        Actor.of(actor).require_admin()
        return audit.rows(self.work.session, audits.parse_ranges(ranges))

    def audit_own_data(self, session, span):
        """Return what the comparison with the orders needs."""
        return {"checks": [], "fingerprints": audit.held(session, span)}

    @handles(OrderCreated, OrderConfirmed, OrderCancelled)
    def on_orders(self, events):
        """Open a payment for new orders, capture it for confirmed ones, give it back for cancelled ones."""
        # Asked as soon as this is committed.
        if use_cases.follow_orders(self.work.session, events, self.provider, self.work.publish):
            self.work.trigger("authorize_pending")

    @periodic(seconds=1.0, transaction=False)
    def authorize_pending(self):
        """Ask the provider about all payments that wait for it. No transaction is open while it thinks."""
        pending = self._pending_after(None)
        while pending:
            answers = use_cases.ask_provider(pending, self.provider)
            with self.work.transaction():
                use_cases.record_outcomes(self.work.session, answers, self.provider, self.work.publish)
            pending = self._pending_after(pending[-1].payment_id) if len(pending) == BATCH else []

    def _pending_after(self, payment_id):
        with self.work.transaction():
            return queries.pending_payments(self.work.session, payment_id, BATCH)
