"""/webhooks: endpoints of users that receive events, and the deliveries to them."""

from typing import Any
from uuid import UUID

from contracts.base import Json, Page, PageRequest
from contracts.errors import PermissionDenied
from contracts.services import Services
from contracts.webhooks import (
    OWNED_EVENTS,
    SHOP_EVENTS,
    CreateWebhook,
    DeliveryFilter,
    DeliveryNotFound,
    DeliveryView,
    ReplayEvents,
    ReplayView,
    TooManyWebhooks,
    UpdateWebhook,
    WebhookDisabled,
    WebhookNotFound,
    WebhookSecretView,
    WebhookView,
)
from extensions.http.message.request import Access, HttpRequest
from extensions.http.message.response import Response
from extensions.http.routing.route import route


class Routes:
    """The routes of webhooks."""

    services: Services
    sent_events = (*OWNED_EVENTS, *SHOP_EVENTS)
    """The events that are sent to endpoints, for the OpenAPI document."""

    @route(
        "POST",
        "/webhooks",
        access=Access.USER,
        service="notifications",
        body=CreateWebhook,
        response=WebhookSecretView,
        status=201,
        errors=(TooManyWebhooks, PermissionDenied),
        idempotent=True,
        location="/webhooks/{id}",
    )
    def create_webhook(self, request: HttpRequest[CreateWebhook]) -> Response:
        """Register an endpoint. The secret is shown here only."""
        return _secret(
            self.services.notifications.create_webhook(
                request.body, actor=request.actor, idempotency_key=request.idempotency_key
            )
        )

    @route("GET", "/webhooks", access=Access.USER, service="notifications", query=PageRequest, response=WebhookView)
    def list_webhooks(self, request: HttpRequest[None, PageRequest]) -> Json[Page[WebhookView]]:
        """List the caller's own endpoints, newest first."""
        return self.services.notifications.list_webhooks(request.query, actor=request.actor)

    @route(
        "GET",
        "/webhooks/{webhook_id}",
        access=Access.USER,
        service="notifications",
        response=WebhookView,
        errors=(WebhookNotFound,),
    )
    def get_webhook(self, request: HttpRequest, webhook_id: UUID) -> Json[WebhookView]:
        """Show one of the caller's endpoints."""
        return self.services.notifications.get_webhook(webhook_id, actor=request.actor)

    @route(
        "PATCH",
        "/webhooks/{webhook_id}",
        access=Access.USER,
        service="notifications",
        body=UpdateWebhook,
        response=WebhookView,
        errors=(WebhookNotFound, PermissionDenied),
    )
    def update_webhook(self, request: HttpRequest[UpdateWebhook], webhook_id: UUID) -> Json[WebhookView]:
        """Change an endpoint, or switch it on or off. Switching it on forgets what failed before."""
        return self.services.notifications.update_webhook(
            webhook_id, request.body, **request.precondition, actor=request.actor
        )

    @route(
        "DELETE",
        "/webhooks/{webhook_id}",
        access=Access.USER,
        service="notifications",
        status=204,
        errors=(WebhookNotFound,),
    )
    def delete_webhook(self, request: HttpRequest, webhook_id: UUID) -> None:
        """Delete an endpoint with its deliveries."""
        self.services.notifications.delete_webhook(webhook_id, actor=request.actor)

    @route(
        "POST",
        "/webhooks/{webhook_id}/rotate-secret",
        access=Access.USER,
        service="notifications",
        response=WebhookSecretView,
        errors=(WebhookNotFound,),
        idempotent=True,
    )
    def rotate_webhook_secret(self, request: HttpRequest, webhook_id: UUID) -> Response:
        """Make a new secret. For a day, deliveries are signed with both."""
        return _secret(
            self.services.notifications.rotate_webhook_secret(
                webhook_id, actor=request.actor, idempotency_key=request.idempotency_key
            )
        )

    @route(
        "POST",
        "/webhooks/{webhook_id}/test",
        access=Access.USER,
        service="notifications",
        response=DeliveryView,
        status=202,
        errors=(WebhookNotFound, WebhookDisabled),
        idempotent=True,
    )
    def test_webhook(self, request: HttpRequest, webhook_id: UUID) -> Json[DeliveryView]:
        """Send a ping of type webhook.test. Its delivery shows what came of it."""
        return self.services.notifications.test_webhook(
            webhook_id, actor=request.actor, idempotency_key=request.idempotency_key
        )

    @route(
        "POST",
        "/webhooks/{webhook_id}/replay",
        access=Access.USER,
        service="notifications",
        body=ReplayEvents,
        response=ReplayView,
        status=202,
        errors=(WebhookNotFound, WebhookDisabled),
        idempotent=True,
    )
    def replay_events(self, request: HttpRequest[ReplayEvents], webhook_id: UUID) -> Json[ReplayView]:
        """Deliver the events of a time range again, also those that were delivered."""
        return self.services.notifications.replay_events(
            webhook_id, request.body, actor=request.actor, idempotency_key=request.idempotency_key
        )

    @route(
        "GET",
        "/webhooks/{webhook_id}/deliveries",
        access=Access.USER,
        service="notifications",
        query=DeliveryFilter,
        response=DeliveryView,
        errors=(WebhookNotFound,),
    )
    def list_deliveries(self, request: HttpRequest[None, DeliveryFilter], webhook_id: UUID) -> Json[Page[DeliveryView]]:
        """List the deliveries to an endpoint, newest first."""
        return self.services.notifications.list_deliveries(webhook_id, request.query, actor=request.actor)

    @route(
        "GET",
        "/webhooks/deliveries/{delivery_id}",
        access=Access.USER,
        service="notifications",
        response=DeliveryView,
        errors=(DeliveryNotFound,),
    )
    def get_delivery(self, request: HttpRequest, delivery_id: UUID) -> Json[DeliveryView]:
        """Show a delivery, with up to 20,000 bytes of the response."""
        return self.services.notifications.get_delivery(delivery_id, actor=request.actor)

    @route(
        "POST",
        "/webhooks/deliveries/{delivery_id}/retry",
        access=Access.USER,
        service="notifications",
        response=DeliveryView,
        status=202,
        errors=(DeliveryNotFound, WebhookDisabled),
        idempotent=True,
    )
    def retry_delivery(self, request: HttpRequest, delivery_id: UUID) -> Json[DeliveryView]:
        """Attempt a delivery now, and as often as a new one."""
        return self.services.notifications.retry_delivery(
            delivery_id, actor=request.actor, idempotency_key=request.idempotency_key
        )


def _secret(webhook: Any) -> Response:
    """Return a secret in a response that no cache stores."""
    return Response(webhook, headers={"Cache-Control": "no-store"})
