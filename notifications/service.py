"""The entrypoints of the notifications service: RPC methods, event handlers, and the work items that send webhooks.

To tell the users of one more event: name this service among its consumers in contracts/, write its text in
templates.py, and add it to the handler here.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, cast, final
from uuid import UUID

from nameko import config
from sqlalchemy.orm import Session

from contracts.base import OPERATOR, Actor, Json, Page, PageRequest, Received
from contracts.errors import ValidationFailed
from contracts.inventory import StockLow
from contracts.notifications import (
    NewNotifications,
    NotificationFilter,
    NotificationPositions,
    NotificationsRpc,
    NotificationView,
    PreferencesView,
    SetPreferences,
)
from contracts.orders import OrderCancelled, OrderConfirmed, OrderCreated, OrderDelivered, OrderShipped
from contracts.payments import PaymentPartiallyRefunded, PaymentRefunded
from contracts.users import (
    UserDeleted,
    UserEmailVerificationRequested,
    UserPasswordResetRequested,
    UserRegistered,
    UserUpdated,
)
from contracts.webhooks import (
    CreateWebhook,
    DeliveryFilter,
    DeliveryView,
    ReplayEvents,
    ReplayView,
    UpdateWebhook,
    WebhookSecretView,
    WebhookView,
)
from extensions.idempotency.calls import run_once
from extensions.idempotency.stored_results import has_stored_result
from extensions.messaging.event_handler import handles
from extensions.operations import audits, operations
from extensions.outbound import smtp
from extensions.outbound.client import Outbound
from extensions.outbound.results import HostUnknown
from extensions.outbound.targets import TargetRefused
from extensions.rpc.server import rpc
from extensions.rpc.signature import WireArguments
from extensions.storage.periodic import periodic
from extensions.storage.retention import delete_older
from extensions.storage.unit_of_work import UnitOfWork, Work
from extensions.storage.work_items_runner import Limits, executes
from notifications import audit, deliveries, mails, queries, recipients, stream_queries, use_cases, webhooks
from notifications.models import Base
from notifications.providers import Mails, MailSettings, OutboundRequests

NOTHING_ARRIVED = WireArguments()
MAILS_KEPT = timedelta(days=30)
"""How long the rows of mails are kept: what was sent when, without what is personal."""


def read_webhook_limits(config: Mapping[str, Any]) -> Limits:
    """Return the limits of the deliveries. Raises ValueError for a setting that is no positive number."""
    concurrency = int(config.get("WEBHOOK_ENDPOINTS", 32))
    if concurrency <= 0:
        raise ValueError("WEBHOOK_ENDPOINTS must be positive")
    return Limits(
        concurrency=concurrency,
        # the last request begins after BEGIN_SECONDS and has its own deadline
        deadline=deliveries.BEGIN_SECONDS + deliveries.REQUEST_SECONDS + 2.0,
        first_pause=1.0,
        longest_pause=deliveries.LONGEST_WAIT_SECONDS,
        prompt=deliveries.PROMPT_SECONDS,
    )


def read_mail_limits(config: Mapping[str, Any]) -> Limits:
    """Return the limits of the mails. Raises ValueError for a setting that is no positive number."""
    concurrency = int(config.get("SMTP_CONNECTIONS", 4))
    if concurrency <= 0:
        raise ValueError("SMTP_CONNECTIONS must be positive")
    return Limits(
        concurrency=concurrency,
        deadline=smtp.TOTAL_SECONDS + 3.0,
        first_pause=5.0,
        longest_pause=max(mails.RETRY_SECONDS),
        prompt=mails.PROMPT_SECONDS,
    )


@final
class NotificationsService(operations.Operations, NotificationsRpc):
    """Messages to the users about their orders and their accounts, and webhooks."""

    name = "notifications"
    work: UnitOfWork = Work(Base)
    outbound: Outbound = OutboundRequests()
    mail: MailSettings = Mails()

    @rpc
    def list_notifications(
        self, wanted: NotificationFilter, *, actor: Actor = OPERATOR
    ) -> Json[Page[NotificationView]]:
        return queries.list_notifications(self.work.session, wanted, actor)

    @rpc(admin=True)
    def list_new(self, wanted: NotificationPositions, *, actor: Actor = OPERATOR) -> Json[NewNotifications]:
        return stream_queries.list_new(self.work.session, wanted).to_dict()

    @rpc(idempotent=True)
    def mark_read(self, notification_id: UUID, *, actor: Actor = OPERATOR, idempotency_key: str | None = None) -> None:
        use_cases.mark_read(self.work.session, notification_id, actor)

    @rpc
    def get_preferences(self, user_id: UUID, *, actor: Actor = OPERATOR) -> Json[PreferencesView]:
        return recipients.get_preferences(self.work.session, user_id, actor).to_dict()

    @rpc
    def set_preferences(
        self,
        user_id: UUID,
        wanted: SetPreferences,
        *,
        actor: Actor = OPERATOR,
        if_match: Sequence[str] | None = None,
    ) -> Json[PreferencesView]:
        return recipients.set_preferences(self.work.session, user_id, wanted, actor, if_match).to_dict()

    # The name of the URL is resolved before the transaction, so that no connection is held meanwhile.
    @rpc(transaction=False)
    def create_webhook(
        self,
        webhook: CreateWebhook,
        *,
        actor: Actor = OPERATOR,
        idempotency_key: str | None = None,
        arrived: WireArguments = NOTHING_ARRIVED,
    ) -> Json[WebhookSecretView]:
        if not has_stored_result(self.work, "create_webhook", idempotency_key, actor):
            self._check(webhook.url)

        def create() -> Json[WebhookSecretView]:
            return webhooks.create_webhook(self.work.session, webhook, actor).to_dict()

        result = run_once(self.work, "create_webhook", idempotency_key, arrived, create)
        return cast("Json[WebhookSecretView]", result)

    @rpc
    def list_webhooks(self, wanted: PageRequest, *, actor: Actor = OPERATOR) -> Json[Page[WebhookView]]:
        return queries.list_webhooks(self.work.session, wanted, actor)

    @rpc
    def get_webhook(self, webhook_id: UUID, *, actor: Actor = OPERATOR) -> Json[WebhookView]:
        return queries.get_webhook(self.work.session, webhook_id, actor).to_dict()

    @rpc(transaction=False)
    def update_webhook(
        self,
        webhook_id: UUID,
        changes: UpdateWebhook,
        *,
        actor: Actor = OPERATOR,
        if_match: Sequence[str] | None = None,
    ) -> Json[WebhookView]:
        with self.work.transaction() as session:
            queries.get_webhook(session, webhook_id, actor)
        if "url" in changes.model_fields_set:
            self._check(changes.url)
        with self.work.transaction() as session:
            view = webhooks.update_webhook(session, webhook_id, changes, actor, if_match)
            self._trigger_deliveries()
        return view.to_dict()

    @rpc
    def delete_webhook(self, webhook_id: UUID, *, actor: Actor = OPERATOR) -> None:
        webhooks.delete_webhook(self.work.session, webhook_id, actor)

    @rpc(idempotent=True)
    def rotate_webhook_secret(
        self, webhook_id: UUID, *, actor: Actor = OPERATOR, idempotency_key: str | None = None
    ) -> Json[WebhookSecretView]:
        return webhooks.rotate_secret(self.work.session, webhook_id, actor).to_dict()

    @rpc(idempotent=True)
    def test_webhook(
        self, webhook_id: UUID, *, actor: Actor = OPERATOR, idempotency_key: str | None = None
    ) -> Json[DeliveryView]:
        self._trigger_deliveries()
        return webhooks.test_webhook(self.work.session, webhook_id, actor).to_dict()

    @rpc(idempotent=True)
    def replay_events(
        self,
        webhook_id: UUID,
        replay: ReplayEvents,
        *,
        actor: Actor = OPERATOR,
        idempotency_key: str | None = None,
    ) -> Json[ReplayView]:
        self._trigger_deliveries()
        return webhooks.replay_events(self.work.session, webhook_id, replay, actor).to_dict()

    @rpc
    def list_deliveries(
        self, webhook_id: UUID, wanted: DeliveryFilter, *, actor: Actor = OPERATOR
    ) -> Json[Page[DeliveryView]]:
        return queries.list_deliveries(self.work.session, webhook_id, wanted, actor)

    @rpc
    def get_delivery(self, delivery_id: UUID, *, actor: Actor = OPERATOR) -> Json[DeliveryView]:
        return queries.get_delivery(self.work.session, delivery_id, actor).to_dict()

    @rpc(idempotent=True)
    def retry_delivery(
        self, delivery_id: UUID, *, actor: Actor = OPERATOR, idempotency_key: str | None = None
    ) -> Json[DeliveryView]:
        self._trigger_deliveries()
        return webhooks.retry_delivery(self.work.session, delivery_id, actor).to_dict()

    @rpc(admin=True)
    def audit_rows(self, ranges: Sequence[Sequence[str | None]], *, actor: Actor = OPERATOR) -> dict[str, Any]:
        return audit.rows(self.work.session, audits.parse_ranges(ranges))

    def audit_own_data(self, session: Session, span: audits.Span) -> operations.OwnAudit:
        """Return what the comparison with the orders needs."""
        return {"checks": [], "fingerprints": audit.held(session, span)}

    @handles(
        UserRegistered,
        UserUpdated,
        UserDeleted,
        UserPasswordResetRequested,
        UserEmailVerificationRequested,
        OrderCreated,
        OrderConfirmed,
        OrderCancelled,
        OrderShipped,
        OrderDelivered,
        PaymentRefunded,
        PaymentPartiallyRefunded,
        StockLow,
    )
    def on_events(self, events: Sequence[Received[Any]]) -> None:
        """Tell users about their accounts, their orders and the stock, in the list and by webhooks."""
        kinds = use_cases.notify(self.work.session, events, with_mails=self.mail.is_on)
        if webhook_kinds := kinds & set(deliveries.KINDS):
            self.work.trigger(self.webhook_deliveries, *webhook_kinds)
        if mails.KIND in kinds:
            self.work.trigger(self.mail_deliveries)

    @executes(*deliveries.KINDS, limits=read_webhook_limits)
    def webhook_deliveries(self) -> deliveries.WebhookDeliveries:
        """Send the deliveries to the endpoints, outside of any transaction."""
        return deliveries.WebhookDeliveries(self.outbound, with_mails=self.mail.is_on)

    @executes(mails.KIND, limits=read_mail_limits)
    def mail_deliveries(self) -> mails.MailDeliveries:
        """Send the mails, outside of any transaction."""
        transaction = self.work.detached_transaction
        return mails.MailDeliveries(self.mail.client, self.mail.sender, self.mail.shop_url, transaction)

    @periodic(seconds=60.0)
    def disable_backlogs(self) -> None:
        """Disable the endpoints for which too many deliveries wait."""
        webhooks.disable_backlogs(self.work.session, with_mails=self.mail.is_on)

    @periodic(seconds=3600.0, transaction=False)
    def forget_old_deliveries(self) -> None:
        """Delete the deliveries and events that are older than WEBHOOK_RETENTION_DAYS, and old mails."""
        age = timedelta(days=float(config.get("WEBHOOK_RETENTION_DAYS", 30)))
        for table in ("webhook_deliveries", "webhook_events"):  # first what needs the other
            delete_older(self.work, Base.metadata.tables[table], "occurred_at", age)
        delete_older(self.work, Base.metadata.tables["mails"], "created_at", MAILS_KEPT)

    def _check(self, url: str) -> None:
        """Raise ValidationFailed unless requests may go to this URL."""
        try:
            self.outbound.check(url)
        except (TargetRefused, HostUnknown) as error:
            raise ValidationFailed.field("url", str(error)) from None

    def _trigger_deliveries(self) -> None:
        self.work.trigger(self.webhook_deliveries, *deliveries.KINDS)
