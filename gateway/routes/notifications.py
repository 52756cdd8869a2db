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
from extensions.http.routing.declaration import EVENT_STREAM
from extensions.http.routing.route import route
from extensions.http.routing.streams import StreamResponse
from gateway.live.provider import Live

STREAM_EXAMPLE = """\
retry: 2000

:

id: 81234-0192d4e1-7c1b-7000-8000-000000000005
data: {"id":"0192d4e1-7c1b-7000-8000-000000000005","order_id":"0192d4e1-7c1b-7000-8000-000000000001",\
"kind":"order.confirmed","subject":"Your order is confirmed","body":"Your order is paid, and we are packing it.",\
"channel":"IN_APP","status":"SENT","created_at":"2026-11-22T09:30:01.000000Z","read_at":null}

"""


class Routes:
    """The routes of the notifications service."""

    services: Services
    streams: Live

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
        "GET",
        "/notifications/stream",
        access=Access.USER,
        service="notifications",
        produces=EVENT_STREAM,
        example=STREAM_EXAMPLE,
    )
    def stream_notifications(self, request: HttpRequest) -> StreamResponse:
        """Follow the caller's own notifications from now on, as server-sent events.

        Each event is a notification as in the list. Its `id` is a position: `Last-Event-ID` continues after it. The
        stream ends, with `event: end`, before the access token expires: connect again with a new one.
        """
        return self.streams.notifications(self.services, request)

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
