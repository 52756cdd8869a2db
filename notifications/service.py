"""The entrypoints of the notifications service: RPC methods and event handlers.

To tell the users of one more event: name this service among its consumers in contracts/, write its text in
templates.py, and add it to the handler here.
"""

from collections.abc import Sequence
from typing import Any, final
from uuid import UUID

from sqlalchemy.orm import Session

from contracts.base import OPERATOR, Actor, Json, Page, Received
from contracts.notifications import (
    NewNotifications,
    NotificationFilter,
    NotificationPositions,
    NotificationsRpc,
    NotificationView,
)
from contracts.orders import OrderCancelled, OrderConfirmed, OrderCreated, OrderDelivered, OrderShipped
from contracts.users import UserRegistered
from extensions.messaging.event_handler import handles
from extensions.operations import audits, operations
from extensions.rpc.server import rpc
from extensions.storage.unit_of_work import UnitOfWork, Work
from notifications import audit, queries, stream_queries, use_cases
from notifications.models import Base


@final
class NotificationsService(operations.Operations, NotificationsRpc):
    """Messages to the users about their orders and their accounts."""

    name = "notifications"
    work: UnitOfWork = Work(Base)

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

    @rpc(admin=True)
    def audit_rows(self, ranges: Sequence[Sequence[str | None]], *, actor: Actor = OPERATOR) -> dict[str, Any]:
        return audit.rows(self.work.session, audits.parse_ranges(ranges))

    def audit_own_data(self, session: Session, span: audits.Span) -> operations.OwnAudit:
        """Return what the comparison with the orders needs."""
        return {"checks": [], "fingerprints": audit.held(session, span)}

    @handles(UserRegistered, OrderCreated, OrderConfirmed, OrderCancelled, OrderShipped, OrderDelivered)
    def on_events(self, events: Sequence[Received[Any]]) -> None:
        """Notify users about their registration and their orders."""
        use_cases.notify(self.work.session, events)
