"""The entrypoints of the payments service: RPC methods, event handlers, and the work items that ask the provider."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, final
from uuid import UUID

from nameko import config
from nameko.exceptions import ConfigurationError
from nameko.extensions import DependencyProvider
from sqlalchemy.orm import Session

from contracts.base import OPERATOR, Actor, Json, Page, PageRequest, Received
from contracts.orders import OrderCancelled, OrderConfirmed, OrderCreated
from contracts.payments import (
    AttemptView,
    ExportedPayment,
    PaymentFilter,
    PaymentsRpc,
    PaymentView,
    ProviderCallView,
    RefundPayment,
    RefundView,
)
from contracts.users import UserDeleted
from extensions.messaging.event_handler import handles
from extensions.observability.traces import current_trace
from extensions.operations import audits, operations
from extensions.rpc.server import rpc
from extensions.storage.deleted_users import DeletedUser
from extensions.storage.periodic import periodic
from extensions.storage.sweeps import Sweep, SweepProvider
from extensions.storage.unit_of_work import UnitOfWork, Work
from extensions.storage.work_items_runner import Limits, executes
from payments import account_deletions, audit, queries, refunds, use_cases
from payments.http_provider import HttpProvider
from payments.models import Base
from payments.provider import PaymentProvider, SimulatedProvider
from payments.rules import Kind

PROMPT_SECONDS = 1.0
"""A call of the provider that takes longer gives its place to another one."""


def read_limits(config: Mapping[str, Any]) -> Limits:
    """Return the limits of the calls of the provider. Raises ValueError for a setting that is no positive number."""
    limits = Limits(
        concurrency=int(config.get("PAYMENT_PROVIDER_CALLS", 32)),
        deadline=float(config.get("PAYMENT_PROVIDER_DEADLINE_SECONDS", 6)),
        first_pause=float(config.get("PAYMENT_RETRY_SECONDS", 0.5)),
        longest_pause=float(config.get("PAYMENT_MAX_RETRY_SECONDS", 30)),
        prompt=PROMPT_SECONDS,
    )
    if min(limits.concurrency, limits.deadline, limits.first_pause, limits.longest_pause) <= 0:
        raise ValueError("the settings of the payment provider must be positive")
    return limits


def make_provider(config: Mapping[str, Any]) -> PaymentProvider:
    """Return the payment provider that the settings name. Raises ConfigurationError for an unknown one."""
    name = config.get("PAYMENT_PROVIDER", "simulated")
    if name == "simulated":
        return SimulatedProvider(Decimal(str(config["PAYMENT_LIMIT"])))
    if name == "http":
        return HttpProvider(str(config.get("PAYMENT_PROVIDER_URL") or ""), read_limits(config).deadline)
    raise ConfigurationError(f"PAYMENT_PROVIDER is {name!r}; it must be simulated or http")


class Provider(DependencyProvider):
    """Gives the service the payment provider that config.yml names."""

    def setup(self) -> None:
        """Make it, so that a wrong setting stops the service at its start."""
        self.provider = make_provider(config)

    def get_dependency(self, _worker_ctx: Any) -> PaymentProvider:
        """Return the provider; all workers share it."""
        return self.provider


@final
class PaymentsService(operations.Operations, PaymentsRpc):
    """Payments of the orders: authorised, captured, voided and refunded at the payment provider."""

    name = "payments"
    work: UnitOfWork = Work(Base)
    provider: PaymentProvider = Provider()
    deletions: Sweep = SweepProvider("clearing payments of deleted users")

    @rpc
    def list_payments(self, wanted: PaymentFilter, *, actor: Actor = OPERATOR) -> Json[Page[PaymentView]]:
        return queries.list_payments(self.work.session, wanted, actor)

    @rpc
    def get_payment(self, payment_id: UUID, *, actor: Actor = OPERATOR) -> Json[PaymentView]:
        return queries.get_payment(self.work.session, payment_id, actor).to_dict()

    @rpc
    def get_payment_of_order(self, order_id: UUID, *, actor: Actor = OPERATOR) -> Json[PaymentView]:
        return queries.get_payment_of_order(self.work.session, order_id, actor).to_dict()

    @rpc
    def export_payments(
        self, user_id: UUID, page: PageRequest, *, actor: Actor = OPERATOR
    ) -> Json[Page[ExportedPayment]]:
        return queries.export_payments(self.work.session, user_id, page, actor)

    @rpc(idempotent=True, admin=True)
    def refund_payment(
        self, payment_id: UUID, refund: RefundPayment, *, actor: Actor = OPERATOR, idempotency_key: str | None = None
    ) -> Json[RefundView]:
        view = refunds.request_refund(self.work.session, payment_id, refund, actor, current_trace())
        self.work.trigger(self.provider_calls, Kind.SETTLEMENT)
        return view.to_dict()

    @rpc(admin=True)
    def list_refunds(self, payment_id: UUID, page: PageRequest, *, actor: Actor = OPERATOR) -> Json[Page[RefundView]]:
        return queries.list_refunds(self.work.session, payment_id, page, actor)

    @rpc(admin=True)
    def list_attempts(self, payment_id: UUID, page: PageRequest, *, actor: Actor = OPERATOR) -> Json[Page[AttemptView]]:
        return queries.list_attempts(self.work.session, payment_id, page, actor)

    @rpc(admin=True)
    def list_provider_calls(self, wanted: PageRequest, *, actor: Actor = OPERATOR) -> Json[Page[ProviderCallView]]:
        return queries.list_provider_calls(self.work.session, wanted)

    @rpc(admin=True)
    def audit_rows(self, ranges: Sequence[Sequence[str | None]], *, actor: Actor = OPERATOR) -> dict[str, Any]:
        return audit.rows(self.work.session, audits.parse_ranges(ranges))

    def audit_own_data(self, session: Session, span: audits.Span) -> operations.OwnAudit:
        """Return what the comparison with the orders needs."""
        return {"checks": audit.checks(session), "fingerprints": audit.held(session, span)}

    @handles(OrderCreated, OrderConfirmed, OrderCancelled)
    def on_orders(self, events: Sequence[Received[Any]]) -> None:
        """Open a payment for new orders, capture it for confirmed ones, void or refund it for cancelled ones."""
        if kinds := use_cases.apply_order_events(self.work.session, events):
            self.work.trigger(self.provider_calls, *kinds)

    @executes(*Kind, limits=read_limits)
    def provider_calls(self) -> use_cases.ProviderCalls:
        """Make the calls of the provider that the payments need, outside of any transaction."""
        return use_cases.ProviderCalls(self.provider)

    @periodic(seconds=30.0)
    def adopt_payments(self) -> None:
        """Schedule the calls for payments that the previous version stored during an upgrade."""
        if use_cases.adopt_payments(self.work.session):
            self.work.trigger(self.provider_calls)

    @handles(UserDeleted)
    def on_user_deleted(self, events: Sequence[Received[UserDeleted]]) -> None:
        """Keep only the amounts of the payments of users who have deleted their accounts."""
        account_deletions.record_deleted_users(self.work.session, events)
        self.work.trigger(self.clear_payments_of_deleted_users)

    @periodic(seconds=5.0, transaction=False)
    def clear_payments_of_deleted_users(self) -> None:
        """Remove how deleted users paid, also from payments that are settled after the account was deleted."""
        self.deletions.run(self.work, account_deletions.lock_deleted_users, self._clear_payments)

    def _clear_payments(self, session: Session, users: Sequence[DeletedUser]) -> None:
        if account_deletions.clear_payments(session, users):
            self.work.trigger(self.clear_payments_of_deleted_users)
