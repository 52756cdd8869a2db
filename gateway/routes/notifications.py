"""/notifications: the messages to a user."""

from uuid import UUID

from contracts.base import Json, Page
from contracts.notifications import NotificationFilter, NotificationNotFound, NotificationView
from contracts.services import Services
from extensions.http.message.request import Access, HttpRequest
from extensions.http.routing.route import route


class Routes:
    """The routes of the notifications service."""

    services: Services

    @route(
        "GET",
        "/notifications",
        access=Access.USER,
        service="notifications",
        query=NotificationFilter,
        response=NotificationView,
    )
    def list_notifications(self, request: HttpRequest[None, NotificationFilter]) -> Json[Page[NotificationView]]:
        """List the caller's own notifications, newest first."""
        return self.services.notifications.list_notifications(request.query, actor=request.actor)

    @route(
        "POST",
        "/notifications/{notification_id}/read",
        access=Access.USER,
        service="notifications",
        status=204,
        errors=(NotificationNotFound,),
    )
    def mark_read(self, request: HttpRequest, notification_id: UUID) -> None:
        """Record that a notification was read."""
        self.services.notifications.mark_read(notification_id, actor=request.actor)
