"""The use cases of webhooks: registering, changing, rotating, testing and replaying. They never commit."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.orm import Session

from contracts.base import Actor
from contracts.errors import PermissionDenied
from contracts.etags import require_match
from contracts.ids import new_id
from contracts.webhooks import (
    MAX_WEBHOOKS,
    TEST_EVENT,
    CreateWebhook,
    DeliveryNotFound,
    DeliveryView,
    DisabledReason,
    ReplayEvents,
    ReplayView,
    Scope,
    TooManyWebhooks,
    UpdateWebhook,
    WebhookDisabled,
    WebhookNotFound,
    WebhookSecretView,
    WebhookView,
)
from extensions.storage.bulk import insert_rows
from notifications import queries, rules, signatures
from notifications.deliveries import KINDS, body_of, delivery_row, schedule
from notifications.models import Base, Recipient, Webhook, WebhookDelivery, WebhookEvent
from notifications.notices import tell_disabled

OLD_SECRET_VALID = timedelta(hours=24)
"""How long deliveries are signed with the old secret, too, after a rotation."""
MAX_REPLAYED = 5000
"""How many events one call replays."""
MAX_WAITING = 100_000
"""How many deliveries may wait for one endpoint. Beyond it, it is disabled."""

_LOCK_USER = text("SELECT pg_advisory_xact_lock(:key)")
_DISABLE_BACKLOGS = text(
    """
    UPDATE webhooks SET disabled_reason = 'BACKLOG', updated_at = clock_timestamp()
    WHERE disabled_reason IS NULL AND id = ANY(ARRAY(
        SELECT CAST(key AS uuid) FROM work_items
        WHERE kind = ANY(:kinds) AND :most < (
            SELECT count(*) FROM (
                SELECT FROM webhook_deliveries
                WHERE webhook_id = CAST(work_items.key AS uuid) AND state = 'PENDING' LIMIT :most + 1
            ) AS waiting
        )
    ))
    RETURNING id, user_id, url, disabled_reason
    """
)


def create_webhook(session: Session, wanted: CreateWebhook, actor: Actor) -> WebhookSecretView:
    """Register an endpoint whose URL was checked. Raises PermissionDenied, TooManyWebhooks."""
    if actor.user_id is None:
        raise PermissionDenied("A webhook belongs to a user: state the user as the actor.")
    scope = wanted.scope or (Scope.SHOP if actor.is_admin else Scope.OWN)
    _require_allowed(scope, wanted.events, actor)
    # So that two calls at once cannot both be the last that is allowed.
    session.execute(_LOCK_USER, {"key": int.from_bytes(actor.user_id.bytes[-8:], signed=True)})
    if session.scalar(select(Recipient.deleted_at).where(Recipient.user_id == actor.user_id)) is not None:
        raise PermissionDenied("The account was deleted.")
    if queries.count_webhooks(session, actor.user_id) >= MAX_WEBHOOKS:
        raise TooManyWebhooks
    webhook = Webhook(
        id=new_id(),
        user_id=actor.user_id,
        url=wanted.url,
        events=list(wanted.events),
        scope=scope,
        secret=signatures.new_secret(),
        slow_until=_unproven(),
    )
    session.add(webhook)
    session.flush()
    session.refresh(webhook)
    return WebhookSecretView.model_validate(webhook)


def update_webhook(
    session: Session, webhook_id: UUID, changes: UpdateWebhook, actor: Actor, if_match: Sequence[str] | None
) -> WebhookView:
    """Change an endpoint. To enable it forgets its failures. Raises WebhookNotFound, PermissionDenied."""
    webhook = queries.lock_webhook(session, webhook_id, actor)
    require_match(WebhookView.model_validate(webhook), if_match)
    stated = changes.model_fields_set
    if "events" in stated:
        _require_allowed(Scope(webhook.scope), changes.events, actor)
        webhook.events = list(changes.events)
    if "url" in stated:
        webhook.url, webhook.slow_until = changes.url, _unproven()
    if "is_enabled" in stated and changes.is_enabled:
        _require_allowed(Scope(webhook.scope), webhook.events, actor)
        webhook.disabled_reason, webhook.failing_since, webhook.failures, webhook.paused_until = None, None, 0, None
    elif "is_enabled" in stated:
        webhook.disabled_reason = webhook.disabled_reason or DisabledReason.OWNER
    webhook.updated_at = func.clock_timestamp()
    session.flush()
    session.refresh(webhook)
    if webhook.is_enabled:
        _schedule(session, webhook)
    return WebhookView.model_validate(webhook)


def delete_webhook(session: Session, webhook_id: UUID, actor: Actor) -> None:
    """Delete an endpoint with its deliveries. Raises WebhookNotFound."""
    webhook = queries.lock_webhook(session, webhook_id, actor)
    session.execute(delete(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook.id))
    session.delete(webhook)


def rotate_secret(session: Session, webhook_id: UUID, actor: Actor) -> WebhookSecretView:
    """Make a new secret; the old one stays valid for OLD_SECRET_VALID. Raises WebhookNotFound."""
    webhook = queries.lock_webhook(session, webhook_id, actor)
    webhook.old_secret, webhook.secret = webhook.secret, signatures.new_secret()
    webhook.old_secret_expires_at = func.clock_timestamp() + OLD_SECRET_VALID
    webhook.updated_at = func.clock_timestamp()
    session.flush()
    session.refresh(webhook)
    return WebhookSecretView.model_validate(webhook)


def test_webhook(session: Session, webhook_id: UUID, actor: Actor) -> DeliveryView:
    """Send a ping. Raises WebhookNotFound, WebhookDisabled."""
    webhook = _enabled(session, webhook_id, actor)
    now = datetime.now(UTC)
    event = {
        "id": new_id(),
        "user_id": webhook.user_id,
        "event_type": TEST_EVENT,
        "body": body_of(TEST_EVENT, now, {"webhook_id": str(webhook.id)}),
        "occurred_at": now,
    }
    row = delivery_row(webhook.id, event)
    insert_rows(session, Base.metadata.tables["webhook_events"], [event])
    insert_rows(session, Base.metadata.tables["webhook_deliveries"], [row])
    _schedule(session, webhook)
    return queries.get_delivery(session, row["id"], actor)


def replay_events(session: Session, webhook_id: UUID, wanted: ReplayEvents, actor: Actor) -> ReplayView:
    """Make the events of a time range due again, delivered or not. Raises WebhookNotFound, WebhookDisabled."""
    webhook = _enabled(session, webhook_id, actor)
    until = wanted.until or datetime.now(UTC)
    found = queries.events_between(session, webhook, wanted.since, until, MAX_REPLAYED + 1)
    endpoint = {"user_id": webhook.user_id, "scope": webhook.scope, "events": webhook.events}
    rows = [
        delivery_row(webhook.id, event._asdict())
        for event in found[:MAX_REPLAYED]
        if event.event_type != TEST_EVENT and rules.receives(endpoint, event.event_type, event.user_id)
    ]
    insert_rows(
        session,
        Base.metadata.tables["webhook_deliveries"],
        rows,
        on_conflict="(webhook_id, event_id) DO UPDATE"
        " SET state = 'PENDING', attempts = 0, next_attempt_at = clock_timestamp(), updated_at = clock_timestamp()",
    )
    _schedule(session, webhook)
    rest = found[MAX_REPLAYED].occurred_at if len(found) > MAX_REPLAYED else None
    return ReplayView(scheduled=len(rows), continue_since=rest)


def retry_delivery(session: Session, delivery_id: UUID, actor: Actor) -> DeliveryView:
    """Make a delivery due, with all of its attempts. Raises DeliveryNotFound, WebhookDisabled."""
    delivery = session.get(WebhookDelivery, delivery_id)
    if delivery is None:
        raise DeliveryNotFound
    try:
        webhook = _enabled(session, delivery.webhook_id, actor)
    except WebhookNotFound:
        raise DeliveryNotFound from None
    session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.id == delivery_id)
        .values(state="PENDING", attempts=0, next_attempt_at=func.clock_timestamp(), updated_at=func.clock_timestamp())
    )
    session.refresh(delivery)
    _schedule(session, webhook)
    return queries.delivery_view(delivery)


def disable_backlogs(session: Session, *, with_mails: bool) -> int:
    """Disable the endpoints for which too many deliveries wait, and tell their owners. Returns how many."""
    rows = session.execute(_DISABLE_BACKLOGS, {"most": MAX_WAITING, "kinds": list(KINDS)}).mappings()
    found = [dict(row) for row in rows]
    tell_disabled(session, found, with_mails=with_mails)
    return len(found)


def disable_shop_webhooks(session: Session, user_ids: Sequence[UUID], *, with_mails: bool) -> None:
    """Disable what these users, who are no administrators any more, have for the events of the whole shop."""
    disabled = session.execute(
        update(Webhook)
        .where(Webhook.user_id.in_(user_ids), Webhook.scope == Scope.SHOP, Webhook.disabled_reason.is_(None))
        .values(disabled_reason=DisabledReason.NOT_ADMIN, updated_at=func.clock_timestamp())
        .returning(Webhook.id, Webhook.user_id, Webhook.url, Webhook.disabled_reason)
    )
    tell_disabled(session, [row._asdict() for row in disabled], with_mails=with_mails)


def delete_webhooks_of(session: Session, user_ids: Sequence[UUID]) -> None:
    """Delete everything of these users: endpoints, deliveries and stored events, also those that others receive."""
    webhooks = select(Webhook.id).where(Webhook.user_id.in_(user_ids))
    session.execute(delete(WebhookDelivery).where(WebhookDelivery.webhook_id.in_(webhooks)))
    session.execute(delete(Webhook).where(Webhook.user_id.in_(user_ids)))
    session.execute(delete(WebhookEvent).where(WebhookEvent.user_id.in_(user_ids)))


def _enabled(session: Session, webhook_id: UUID, actor: Actor) -> Webhook:
    webhook = queries.lock_webhook(session, webhook_id, actor)
    if not webhook.is_enabled:
        raise WebhookDisabled
    webhook.paused_until = None  # its owner wants it now
    session.flush()
    return webhook


def _schedule(session: Session, webhook: Webhook) -> None:
    schedule(session, [one | {"pause": 0.0} for one in queries.endpoints(session, [webhook.id])])


def _unproven() -> Any:
    """Return until when a new URL counts as slow: otherwise a user could always have new ones, which are not known."""
    return func.clock_timestamp() + timedelta(seconds=rules.SLOW_SECONDS)


def _require_allowed(scope: Scope, events: Sequence[str], actor: Actor) -> None:
    if not actor.is_admin and (scope == Scope.SHOP or rules.SHOP_EVENT_TYPES & set(events)):
        raise PermissionDenied("Events of the whole shop need the admin role.")
