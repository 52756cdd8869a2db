"""Every way into notifications: RPC methods and event handlers.

To tell the users of one more event: name this service among its consumers in contracts/, write its text in
templates.py, and add it to the handler here.
"""

from contracts.base import Actor
from contracts.ids import parse_id
from contracts.notifications import NotificationFilter
from contracts.orders import OrderCancelled, OrderConfirmed, OrderCreated, OrderDelivered, OrderShipped
from contracts.users import UserRegistered
from extensions.messaging.event_handler import handles
from extensions.operations import audits, operations
from extensions.rpc.server import rpc
from extensions.storage.unit_of_work import Work
from notifications import audit, queries, use_cases
from notifications.models import Base


class NotificationsService(operations.Operations):
    """Messages to the users about their orders and their accounts."""

    name = "notifications"
    work = Work(Base)

    @rpc
    def list_notifications(self, limit=20, cursor=None, actor=None):
        """List one's own notifications, newest first; the operator sees everybody's."""
        wanted = NotificationFilter.parse({"limit": limit, "cursor": cursor})
        return queries.list_notifications(self.work.session, wanted, Actor.of(actor))

    @rpc
    def mark_read(self, notification_id, actor=None):
        """Mark a notification as read; again does nothing."""
        use_cases.mark_read(self.work.session, parse_id("notification_id", notification_id), Actor.of(actor))

    @rpc
    def audit_rows(self, ranges, actor=None):
        """Tell what is held for each order of some ranges of ids: see orders/reconciliation.py."""
        Actor.of(actor).require_admin()
        return audit.rows(self.work.session, audits.parse_ranges(ranges))

    def audit_own_data(self, session, span):
        """Return what the comparison with the orders needs."""
        return {"checks": [], "fingerprints": audit.held(session, span)}

    @handles(UserRegistered, OrderCreated, OrderConfirmed, OrderCancelled, OrderShipped, OrderDelivered)
    def on_news(self, events):
        """Welcome new users, and tell the others what became of their orders."""
        use_cases.notify(self.work.session, events)
