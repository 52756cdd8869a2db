"""The deliveries of webhooks: which endpoints receive an event, and the work items that send it.

The key of a work item is the id of an *endpoint* that has deliveries to make. So at most one process sends to an
endpoint at a time, a few requests at once, and an endpoint that is slow or dead holds one place, however many
deliveries wait for it. Endpoints that failed last have places of their own, and rest between single attempts.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from contracts.base import Event, Publish, Received
from contracts.ids import made_at, new_id
from contracts.webhooks import OWNED_EVENTS, SHOP_EVENTS, DeliveryState, DisabledReason
from extensions.outbound.results import TOTAL_SECONDS, HostUnknown, RequestFailed, Response
from extensions.outbound.targets import TargetRefused
from extensions.storage import work_items
from extensions.storage.bulk import insert_rows
from extensions.storage.work_items import Item, Later
from notifications import queries, rules, signatures
from notifications.models import Base
from notifications.notices import tell_disabled
from notifications.preferences import Channel, wants
from notifications.rules import Attempt

WORKING, SLOW, FAILING = "webhooks", "slow_webhooks", "failing_webhooks"
"""The kinds of work items: endpoints that work, those that were slow lately or are new, and those that failed last."""
KINDS = (WORKING, SLOW, FAILING)
PROMPT_SECONDS = 2.0
"""A response that takes longer is slow."""
MAX_DUE = 64
"""How many deliveries to one endpoint one execution makes at most."""
PLACES = 16
"""How many requests to one endpoint run at a time."""
BEGIN_SECONDS = 2.0
"""How long one execution begins further requests. The last one may take as long as a request may."""
REQUEST_SECONDS = TOTAL_SECONDS
"""How long a request may take."""
LONGEST_WAIT_SECONDS = 600.0
"""After which an item is looked at again, although its next delivery is due later."""
DELIVERED_EVENTS = (*OWNED_EVENTS, *SHOP_EVENTS)

_RECORD = text(
    """
    UPDATE webhook_deliveries
    SET state = made.state, attempts = made.attempts, last_attempt_at = clock_timestamp(),
        next_attempt_at = clock_timestamp() + make_interval(secs => made.pause),
        response_status = made.status, response_body = made.body, duration_ms = made.duration, error = made.error,
        updated_at = clock_timestamp()
    FROM unnest(CAST(:ids AS uuid[]), CAST(:states AS text[]), CAST(:attempts AS integer[]),
                CAST(:pauses AS double precision[]), CAST(:statuses AS integer[]), CAST(:bodies AS text[]),
                CAST(:durations AS integer[]), CAST(:errors AS text[]))
      AS made (id, state, attempts, pause, status, body, duration, error)
    WHERE webhook_deliveries.id = made.id
    """
)
_JUDGE = text(
    """
    UPDATE webhooks
    SET failures = judged.failures, disabled_reason = judged.reason,
        failing_since = CASE WHEN judged.failures = 0 THEN NULL
                             ELSE coalesce(webhooks.failing_since, clock_timestamp()) END,
        paused_until = CASE WHEN judged.failures = 0 THEN NULL
                            ELSE clock_timestamp() + make_interval(secs => judged.pause) END,
        slow_until = CASE WHEN judged.was_slow THEN clock_timestamp() + make_interval(secs => :slow)
                          ELSE webhooks.slow_until END,
        updated_at = CASE WHEN judged.reason IS NULL THEN webhooks.updated_at ELSE clock_timestamp() END
    FROM unnest(CAST(:ids AS uuid[]), CAST(:failures AS integer[]), CAST(:pauses AS double precision[]),
                CAST(:reasons AS text[]), CAST(:were_slow AS boolean[]))
      AS judged (id, failures, pause, reason, was_slow)
    WHERE webhooks.id = judged.id
    """
)

T = TypeVar("T")


class Sender(Protocol):
    """Makes requests. In a service it is extensions/outbound/client.py."""

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Response:
        """Send a body. Raises TargetRefused, HostUnknown, RequestFailed."""

    def call_each(self, items: Iterable[T], call: Callable[[T], bool], *, places: int, seconds: float) -> None:
        """Call `call(item)` for each item, `places` at a time; no further one after a False, and after `seconds`."""


@dataclass(frozen=True, slots=True)
class Due:
    """A delivery that is due: the attempts that were made, and what is sent. `body` is None if it is no longer kept."""

    id: UUID
    event_id: UUID
    attempts: int
    body: str | None


@dataclass(frozen=True, slots=True)
class Sending:
    """The due deliveries of one endpoint."""

    url: str
    secrets: tuple[str, ...]
    due: tuple[Due, ...]


def deliver_events(session: Session, events: Sequence[Received[Any]]) -> set[str]:
    """Store the deliveries of events to the endpoints that receive them. Returns the kinds of their work items."""
    found = [received for received in events if isinstance(received.event, DELIVERED_EVENTS)]
    if not found:
        return set()
    owners = {user_id for received in found if (user_id := _owner(received.event)) is not None}
    webhooks = queries.receivers(session, owners)
    if not webhooks:
        return set()
    stored: list[dict[str, Any]] = []
    deliveries: list[dict[str, Any]] = []
    for received in found:
        receivers = [one for one in webhooks if _receives(one, received.event)]
        if not receivers:
            continue
        event = event_row(received.message_id, _owner(received.event), received.event)
        stored.append(event)
        deliveries += [delivery_row(one["id"], event) for one in receivers if one["is_enabled"]]
    insert_rows(session, Base.metadata.tables["webhook_events"], stored, on_conflict="(id) DO NOTHING")
    insert_rows(
        session,
        Base.metadata.tables["webhook_deliveries"],
        deliveries,
        on_conflict="(webhook_id, event_id) DO NOTHING",
    )
    due = {row["webhook_id"] for row in deliveries}
    return schedule(session, [one for one in webhooks if one["id"] in due])


def schedule(session: Session, webhooks: Sequence[Mapping[str, Any]]) -> set[str]:
    """Schedule the work of endpoints (`id`, `failures`, `is_slow`, `pause` in seconds). Returns the kinds of items."""
    steps = {str(one["id"]): Later(kind_of(one), one["pause"]) for one in webhooks}
    work_items.schedule(session, steps)
    return {step.kind for step in steps.values()}


def kind_of(webhook: Mapping[str, Any]) -> str:
    """Return the kind of work item of an endpoint (`failures`, `is_slow`)."""
    if webhook["failures"]:
        return FAILING
    return SLOW if webhook["is_slow"] else WORKING


def event_row(event_id: UUID, user_id: UUID | None, event: Event) -> dict[str, Any]:
    """Return the row of an event, with the body that is sent."""
    occurred_at = datetime.fromtimestamp(made_at(event_id) or time.time(), UTC)
    return {
        "id": event_id,
        "user_id": user_id,
        "event_type": event.event_type,
        "body": body_of(event.event_type, occurred_at, event.model_dump(mode="json", exclude_none=True)),
        "occurred_at": occurred_at,
    }


def body_of(event_type: str, occurred_at: datetime, data: Mapping[str, Any]) -> str:
    """Return the body that is signed and sent."""
    timestamp = occurred_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    content = {"type": event_type, "timestamp": timestamp, "data": data}
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def delivery_row(webhook_id: UUID, event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of a new delivery of an event."""
    return {
        "id": new_id(),
        "webhook_id": webhook_id,
        "event_id": event["id"],
        "event_type": event["event_type"],
        "occurred_at": event["occurred_at"],
    }


class WebhookDeliveries:
    """The work items of endpoints."""

    def __init__(self, sender: Sender, *, with_mails: bool) -> None:
        """`with_mails`: the owner of an endpoint that is disabled gets a mail, too."""
        self._sender, self._with_mails = sender, with_mails

    def prepare(self, session: Session, items: Sequence[Item]) -> Mapping[str, Sending]:
        """Return the due deliveries of each endpoint that is enabled and does not rest."""
        webhooks = {
            one["id"]: one
            for one in queries.endpoints(session, [UUID(item.key) for item in items])
            if one["is_enabled"] and one["pause"] <= 0
        }
        # A single one where the last attempt failed: whether the endpoint works is known afterwards.
        limits = {webhook_id: 1 if one["failures"] else MAX_DUE for webhook_id, one in webhooks.items()}
        due: dict[UUID, list[Due]] = {}
        for row in queries.due_deliveries(session, limits):
            due.setdefault(row.webhook_id, []).append(Due(row.id, row.event_id, row.attempts, row.body))
        return {
            str(webhook_id): Sending(webhooks[webhook_id]["url"], webhooks[webhook_id]["secrets"], tuple(found))
            for webhook_id, found in due.items()
        }

    def execute(self, request: Sending) -> Sequence[Sequence[Attempt]]:
        """Send the deliveries. The one outcome is the list of the attempts."""
        attempts: list[Attempt] = []

        def deliver(due: Due) -> bool:
            attempt = self._attempt(request, due)
            attempts.append(attempt)
            return attempt.is_success

        self._sender.call_each(request.due, deliver, places=min(PLACES, len(request.due)), seconds=BEGIN_SECONDS)
        return [attempts]

    def is_outage(self, _error: BaseException) -> bool:
        """Return False: what is wrong with an endpoint says nothing about the others."""
        return False

    def record(
        self, session: Session, outcomes: Mapping[str, Sequence[Attempt] | None], _publish: Publish
    ) -> Mapping[str, str | Later | None]:
        """Record the attempts, judge the endpoints by them, and return when each has to be looked at again."""
        wanted = {UUID(key): attempts or () for key, attempts in outcomes.items()}
        locked = {one["id"]: one for one in queries.lock_endpoints(session, wanted)}
        missing = wanted.keys() - locked.keys()
        gone = missing - queries.existing_endpoints(session, missing) if missing else set()
        following: dict[str, str | Later | None] = {str(webhook_id): None for webhook_id in gone}
        _record_attempts(session, [attempt for webhook_id in locked for attempt in wanted[webhook_id]])
        judged = [_judged(one, wanted[webhook_id]) for webhook_id, one in locked.items()]
        _store_judgements(session, [one for one in judged if one["has_changed"]])
        tell_disabled(session, [one for one in judged if one["is_newly_disabled"]], with_mails=self._with_mails)
        return following | _next_steps(session, judged)

    def _attempt(self, request: Sending, due: Due) -> Attempt:
        began = time.monotonic()
        problem, response = "", None
        if due.body is None:
            problem = "the event is no longer kept"
        else:
            body = due.body.encode()
            try:
                headers = signatures.headers(str(due.event_id), int(time.time()), body, request.secrets)
                response = self._sender.post(request.url, {"Content-Type": "application/json", **headers}, body)
            except TargetRefused as error:
                problem = f"the URL {error}"
            except (RequestFailed, HostUnknown) as error:
                problem = str(error)
            except Exception as error:  # noqa: BLE001  (whatever is wrong, it concerns only this delivery)
                problem = f"the request could not be made: {type(error).__name__}"
        duration = round(1000 * (time.monotonic() - began))
        if response is None:
            return Attempt(due.id, due.attempts + 1, duration, problem=problem)
        return Attempt(
            due.id,
            due.attempts + 1,
            duration,
            status=response.status,
            body=response.body,
            retry_after=rules.parse_retry_after(response.retry_after, datetime.now(UTC)),
        )


def _owner(event: Any) -> UUID | None:
    owner: UUID | None = getattr(event, "user_id", None)
    return owner


def _receives(webhook: Mapping[str, Any], event: Event) -> bool:
    return wants(webhook["preferences"], event.event_type, Channel.WEBHOOK) and rules.receives(
        webhook, event.event_type, _owner(event)
    )


def _record_attempts(session: Session, attempts: Sequence[Attempt]) -> None:
    if not attempts:
        return
    pauses = [None if one.is_success else rules.retry_pause(one.attempts, one.retry_after) for one in attempts]
    states = [
        DeliveryState.DELIVERED if one.is_success else DeliveryState.FAILED if pause is None else DeliveryState.PENDING
        for one, pause in zip(attempts, pauses, strict=True)
    ]
    values = {
        "ids": [one.delivery_id for one in attempts],
        "states": [str(state) for state in states],
        "attempts": [one.attempts for one in attempts],
        "pauses": [pause or 0.0 for pause in pauses],
        "statuses": [one.status for one in attempts],
        "bodies": [one.body.decode(errors="replace").replace("\x00", "") for one in attempts],
        "durations": [one.duration_ms for one in attempts],
        "errors": [one.error for one in attempts],
    }
    session.execute(_RECORD, values)


def _judged(webhook: Mapping[str, Any], attempts: Sequence[Attempt]) -> dict[str, Any]:
    """Return the endpoint as it is after these attempts. The last one counts: it says how the endpoint is now."""
    failures, pause, reason = webhook["failures"], webhook["pause"], webhook["disabled_reason"]
    if attempts and attempts[-1].is_success:
        failures, pause = 0, 0.0
    elif attempts:
        failures += 1
        pause = rules.endpoint_pause(failures, attempts)
    if any(one.status == rules.GONE for one in attempts):
        reason = reason or DisabledReason.GONE
    elif failures and webhook["failing_seconds"] >= rules.DISABLED_AFTER.total_seconds() and attempts:
        reason = reason or DisabledReason.FAILING
    was_slow = any(one.duration_ms > 1000 * PROMPT_SECONDS for one in attempts)
    return {
        **webhook,
        "failures": failures,
        "pause": pause,
        "disabled_reason": reason,
        "was_slow": was_slow,
        "is_slow": webhook["is_slow"] or was_slow,
        "has_changed": was_slow or (failures, reason) != (webhook["failures"], webhook["disabled_reason"]),
        "is_newly_disabled": reason != webhook["disabled_reason"],
    }


def _store_judgements(session: Session, judged: Sequence[Mapping[str, Any]]) -> None:
    if judged:
        values = {
            "ids": [one["id"] for one in judged],
            "failures": [one["failures"] for one in judged],
            "pauses": [one["pause"] for one in judged],
            "reasons": [one["disabled_reason"] for one in judged],
            "were_slow": [one["was_slow"] for one in judged],
            "slow": rules.SLOW_SECONDS,
        }
        session.execute(_JUDGE, values)


def _next_steps(session: Session, webhooks: Sequence[Mapping[str, Any]]) -> dict[str, str | Later | None]:
    """Return when each endpoint has to be looked at again; None for one that has nothing to receive."""
    due = queries.seconds_until_due(session, [one["id"] for one in webhooks if one["disabled_reason"] is None])
    steps: dict[str, str | Later | None] = {}
    for one in webhooks:
        kind, key = kind_of(one), str(one["id"])
        if one["id"] not in due:
            steps[key] = None
            continue
        seconds = max(due[one["id"]], one["pause"])
        steps[key] = Later(kind, min(seconds, LONGEST_WAIT_SECONDS)) if seconds > 0 else kind
    return steps
