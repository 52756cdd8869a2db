"""The body of GET /users/me/export, which the gateway gathers from the services."""

from contracts.base import Cursor, Request, View
from contracts.notifications import NotificationView, PreferenceItem
from contracts.orders import ExportedOrder
from contracts.payments import ExportedPayment
from contracts.users import LoginView, UserView
from contracts.webhooks import WebhookView


class ExportQuery(Request):
    """The query of GET /users/me/export: where the last response ended."""

    cursor: Cursor | None = None


class AccountExport(View):
    """Everything that is kept about a user, newest first in each list.

    A response has a bounded number of records. While there are more, `next_cursor` asks for the next ones.
    """

    user: UserView
    notification_preferences: tuple[PreferenceItem, ...]
    sessions: tuple[LoginView, ...]
    orders: tuple[ExportedOrder, ...]
    payments: tuple[ExportedPayment, ...]
    notifications: tuple[NotificationView, ...]
    webhooks: tuple[WebhookView, ...]
    next_cursor: str | None
