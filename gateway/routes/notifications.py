"""/notifications: the messages to a user."""

from typing import Any
from uuid import UUID

from contracts.base import Json, Page
from contracts.notifications import (
    NotificationFilter,
    NotificationNotFound,
    NotificationView,
    PreferencesNotFound,
    PreferencesView,
    SetPreferences,
)
from contracts.services import Services
from extensions.http.message.request import Access, HttpRequest
from extensions.http.message.response import Response
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
        "GET",
        "/users/me/notification-preferences",
        access=Access.USER,
        service="notifications",
        response=PreferencesView,
    )
    def get_preferences(self, request: HttpRequest) -> Json[PreferencesView]:
        """Show what the caller is told, and how: by the list, by mail, by webhooks."""
        return self.services.notifications.get_preferences(request.user_id, actor=request.actor)

    @route(
        "PUT",
        "/users/me/notification-preferences",
        access=Access.USER,
        service="notifications",
        body=SetPreferences,
        response=PreferencesView,
        errors=(PreferencesNotFound,),
    )
    def set_preferences(self, request: HttpRequest[SetPreferences]) -> Json[PreferencesView]:
        """Replace the caller's preferences. What is left out has its default."""
        return self.services.notifications.set_preferences(
            request.user_id, request.body, **request.precondition, actor=request.actor
        )

    @route(
        "POST",
        "/notifications/{notification_id}/read",
        access=Access.USER,
        service="notifications",
        status=204,
        errors=(NotificationNotFound,),
        idempotent=True,
    )
    def mark_read(self, request: HttpRequest, notification_id: UUID) -> Response:
        """Record that a notification was read."""
        result: Any = self.services.notifications.mark_read(  # type: ignore[func-returns-value]
            notification_id, actor=request.actor, idempotency_key=request.idempotency_key
        )
        return Response(result)  # the result says whether it is a repeated one
