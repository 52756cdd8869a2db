"""The queries of the notifications service. Those named lock_* also lock the rows until the transaction ends."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, func, select, text
from sqlalchemy.orm import Session

from contracts.base import Actor, Json, Page, PageRequest, page_of
from contracts.notifications import NotificationFilter, NotificationView
from contracts.webhooks import (
    DeliveryFilter,
    DeliveryNotFound,
    DeliveryState,
    DeliveryView,
    Scope,
    WebhookNotFound,
    WebhookView,
)
from extensions.storage.pagination import equal_in_order, fetch_page
from notifications import rules
from notifications.models import Notification, Webhook, WebhookDelivery, WebhookEvent

SHOWN_IN_LISTS = 1000
"""Characters of a response."""

# Times beyond the longest pause were stored before the clock of the database was set back: they have passed.
_PAUSE = f"""
    CASE WHEN webhooks.paused_until > clock_timestamp() + interval '{rules.LONGEST_PAUSE_SECONDS} s' THEN 0
         ELSE greatest(0, extract(epoch FROM webhooks.paused_until - clock_timestamp())) END::double precision
"""
_IS_SLOW = f"""
    coalesce(webhooks.slow_until > clock_timestamp()
             AND webhooks.slow_until <= clock_timestamp() + interval '{rules.SLOW_SECONDS} s', false)
"""
_RECEIVERS = text(
    f"""
    SELECT webhooks.id, webhooks.user_id, webhooks.events, webhooks.scope, webhooks.failures,
           webhooks.disabled_reason IS NULL AS is_enabled, {_PAUSE} AS pause, {_IS_SLOW} AS is_slow,
           (SELECT preferences FROM recipients WHERE recipients.user_id = webhooks.user_id) AS preferences
    FROM (SELECT * FROM webhooks WHERE user_id = ANY(CAST(:owners AS uuid[]))
          UNION SELECT * FROM webhooks WHERE scope = 'SHOP') AS webhooks
    """  # noqa: S608  (our own names)
)
_ENDPOINTS = f"""
    SELECT id, user_id, url, failures, disabled_reason, disabled_reason IS NULL AS is_enabled, secret,
           {_IS_SLOW} AS is_slow,
           CASE WHEN old_secret_expires_at > clock_timestamp() THEN old_secret END AS old_secret,
           {_PAUSE} AS pause,
           coalesce(extract(epoch FROM clock_timestamp() - failing_since), 0)::double precision AS failing_seconds
    FROM webhooks WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY id
"""  # noqa: S608  (our own names)
_READ_ENDPOINTS = text(_ENDPOINTS)
_LOCK_ENDPOINTS = text(f"{_ENDPOINTS} FOR UPDATE SKIP LOCKED")
# A first attempt is due at once. A time beyond the longest pause was stored before the clock of the database was set
# back: it has passed, too.
_DUE = text(
    """
    SELECT due.id, due.webhook_id, due.event_id, due.attempts,
           (SELECT body FROM webhook_events WHERE webhook_events.id = due.event_id) AS body
    FROM unnest(CAST(:ids AS uuid[]), CAST(:limits AS integer[])) AS wanted (id, most)
    CROSS JOIN LATERAL (
        SELECT * FROM webhook_deliveries
        WHERE webhook_id = wanted.id AND state = 'PENDING'
          AND (attempts = 0 OR next_attempt_at <= statement_timestamp()
               OR next_attempt_at > statement_timestamp() + make_interval(secs => :horizon))
        ORDER BY next_attempt_at LIMIT wanted.most
    ) AS due
    ORDER BY due.next_attempt_at, due.id
    """
)
_NEXT_DUE = text(
    """
    SELECT wanted.id, CASE WHEN next.attempts = 0
                             OR next.next_attempt_at > clock_timestamp() + make_interval(secs => :horizon) THEN 0
                           ELSE extract(epoch FROM next.next_attempt_at - clock_timestamp()) END::double precision
           AS seconds
    FROM unnest(CAST(:ids AS uuid[])) AS wanted (id)
    CROSS JOIN LATERAL (
        SELECT attempts, next_attempt_at FROM webhook_deliveries
        WHERE webhook_id = wanted.id AND state = 'PENDING' ORDER BY next_attempt_at LIMIT 1
    ) AS next
    """
)


def list_notifications(session: Session, wanted: NotificationFilter, actor: Actor) -> Json[Page[NotificationView]]:
    """Return a page of NotificationView, newest first: the actor's own, or all for the operator."""
    notifications = select(Notification).where(Notification.in_app)
    if actor.user_id is not None:  # administrators, too, read only their own
        notifications = notifications.where(Notification.user_id == actor.user_id)
    rows, cursor = fetch_page(session, notifications, keys=[Notification.id], limit=wanted.limit, cursor=wanted.cursor)
    return page_of([NotificationView.model_validate(row) for row in rows], cursor)


# Webhooks


def list_webhooks(session: Session, wanted: PageRequest, actor: Actor) -> Json[Page[WebhookView]]:
    """Return a page of WebhookView, newest first: the actor's own, or all for the operator."""
    rows, cursor = fetch_page(session, _own(actor), keys=[Webhook.id], limit=wanted.limit, cursor=wanted.cursor)
    return page_of([WebhookView.model_validate(row) for row in rows], cursor)


def get_webhook(session: Session, webhook_id: UUID, actor: Actor) -> WebhookView:
    """Return an endpoint. Raises WebhookNotFound, also if it is another user's: administrators see only theirs."""
    return WebhookView.model_validate(_one(session, _own(actor).where(Webhook.id == webhook_id)))


def lock_webhook(session: Session, webhook_id: UUID, actor: Actor) -> Webhook:
    """Return an endpoint for a change. Raises WebhookNotFound."""
    return _one(session, _own(actor).where(Webhook.id == webhook_id).with_for_update())


def count_webhooks(session: Session, user_id: UUID | None) -> int:
    """Return how many endpoints a user has."""
    return session.scalar(select(func.count()).where(Webhook.user_id == user_id)) or 0


def list_deliveries(
    session: Session, webhook_id: UUID, wanted: DeliveryFilter, actor: Actor
) -> Json[Page[DeliveryView]]:
    """Return a page of DeliveryView, newest first, each with the beginning of the response. Raises WebhookNotFound."""
    get_webhook(session, webhook_id, actor)
    deliveries = select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook_id)
    keys: list[Any] = [WebhookDelivery.id]
    if wanted.state is not None:
        keys = [WebhookDelivery.state, WebhookDelivery.id]
        deliveries = deliveries.where(equal_in_order(WebhookDelivery.state, wanted.state))
    rows, cursor = fetch_page(session, deliveries, keys=keys, limit=wanted.limit, cursor=wanted.cursor)
    return page_of([delivery_view(row, SHOWN_IN_LISTS) for row in rows], cursor)


def get_delivery(session: Session, delivery_id: UUID, actor: Actor) -> DeliveryView:
    """Return a delivery. Raises DeliveryNotFound, also if it is to the endpoint of another user."""
    delivery = session.get(WebhookDelivery, delivery_id)
    if delivery is None or session.scalar(_own(actor).where(Webhook.id == delivery.webhook_id)) is None:
        raise DeliveryNotFound
    return delivery_view(delivery)


def delivery_view(delivery: WebhookDelivery, shown: int | None = None) -> DeliveryView:
    """Return a delivery as it is shown, with so many characters of the response."""
    is_pending = delivery.state == DeliveryState.PENDING
    values = {name: getattr(delivery, name, None) for name in DeliveryView.model_fields}
    return DeliveryView.model_validate(
        values
        | {
            "event": delivery.event_type,
            "next_attempt_at": delivery.next_attempt_at if is_pending else None,
            "response_body": None if delivery.response_body is None else delivery.response_body[:shown],
        }
    )


def events_between(session: Session, webhook: Webhook, since: datetime, until: datetime, limit: int) -> Sequence[Any]:
    """Return `id`, `event_type`, `occurred_at` of the events that an endpoint may receive, oldest first."""
    events = select(WebhookEvent.id, WebhookEvent.user_id, WebhookEvent.event_type, WebhookEvent.occurred_at).where(
        WebhookEvent.occurred_at >= since, WebhookEvent.occurred_at < until
    )
    if webhook.scope == Scope.OWN:
        events = events.where(WebhookEvent.user_id == webhook.user_id)
    return session.execute(events.order_by(WebhookEvent.occurred_at, WebhookEvent.id).limit(limit)).all()


# The work items of endpoints


def receivers(session: Session, owners: Iterable[UUID]) -> Sequence[Mapping[str, Any]]:
    """Return the endpoints of these users, and those for the events of the whole shop, with their owners' preferences.

    `pause`: for how many seconds nothing is sent to it.
    """
    rows = session.execute(_RECEIVERS, {"owners": sorted(owners)}).mappings()
    return [dict(row) for row in rows]


def endpoints(session: Session, webhook_ids: Collection[UUID]) -> list[dict[str, Any]]:
    """Return these endpoints with their valid `secrets`, the newest first. `pause` as in `receivers`."""
    return _endpoints(session, _READ_ENDPOINTS, webhook_ids)


def lock_endpoints(session: Session, webhook_ids: Iterable[UUID]) -> list[dict[str, Any]]:
    """Return them as `endpoints` does, without those that another transaction has locked."""
    return _endpoints(session, _LOCK_ENDPOINTS, webhook_ids)


def existing_endpoints(session: Session, webhook_ids: Collection[UUID]) -> set[UUID]:
    """Return which of these endpoints exist."""
    return set(session.scalars(select(Webhook.id).where(Webhook.id.in_(webhook_ids))))


def due_deliveries(session: Session, limits: Mapping[UUID, int]) -> Sequence[Row[Any]]:
    """Return the deliveries that are due, the longest due first: up to a limit for each endpoint."""
    if not limits:
        return []
    values = {"ids": list(limits), "limits": list(limits.values()), "horizon": rules.longest_pause()}
    return session.execute(_DUE, values).all()


def seconds_until_due(session: Session, webhook_ids: Collection[UUID]) -> dict[UUID, float]:
    """Return when the next delivery of each endpoint is due; those without one are left out. Negative: it is due."""
    if not webhook_ids:
        return {}
    values = {"ids": list(webhook_ids), "horizon": rules.longest_pause()}
    return {row.id: row.seconds for row in session.execute(_NEXT_DUE, values)}


def _endpoints(session: Session, statement: Any, webhook_ids: Iterable[UUID]) -> list[dict[str, Any]]:
    rows = session.execute(statement, {"ids": list(webhook_ids)}).mappings()
    return [
        {**row, "secrets": tuple(secret for secret in (row["secret"], row["old_secret"]) if secret)} for row in rows
    ]


def _own(actor: Actor) -> Select[Webhook]:
    webhooks = select(Webhook)
    return webhooks if actor.user_id is None else webhooks.where(Webhook.user_id == actor.user_id)


def _one(session: Session, webhook: Select[Webhook]) -> Webhook:
    found = session.scalars(webhook).one_or_none()
    if found is None:
        raise WebhookNotFound
    return found
