"""The RPC methods that every service with a database has: health, dead letters and its part of an audit."""

import logging
from collections.abc import Sequence
from typing import Any, TypedDict, cast
from uuid import UUID

import eventlet
from nameko.extensions import DependencyProvider
from sqlalchemy.orm import Session

from contracts.base import OPERATOR, Actor, Json, Page
from contracts.errors import ServiceError
from contracts.ids import parse_id
from contracts.operations import Audit, CheckResult, DeadLetterFilter, DeadLetterView, Health, OperatedRpc
from extensions.cache.connection import Redis, RedisHealth
from extensions.messaging.dead_letter_store import DeadLetterStore
from extensions.messaging.outbox_relay import Outbox
from extensions.observability.traces import current_trace, start_trace
from extensions.operations.audits import SHOWN_IDS, Span, outbox_summary, read_snapshot
from extensions.rpc.server import rpc
from extensions.storage import retention
from extensions.storage.periodic import periodic

log = logging.getLogger(__name__)

AUDIT_SECONDS = 300
# Less than the gateway's timeout for a health call, so that the report names the database and not the service.
DATABASE_SECONDS = 1.0


class Tracing(DependencyProvider):
    """Continues the trace of the caller in the worker of an RPC call."""

    def worker_setup(self, worker_ctx: Any) -> None:
        """Read the trace and the caller's timeout from the message of the call."""
        message = worker_ctx.data.pop("message", None)
        if message is None:
            return
        expiration = str(message.properties.get("expiration") or "")
        budget = int(expiration) / 1000 if expiration.isdigit() else None
        start_trace(message.headers or {}, worker_ctx.service_name, budget)


class OwnAudit(TypedDict):
    """The service's part of its Audit: its own checks, and the fingerprints of its records about orders."""

    checks: list[CheckResult]
    fingerprints: dict[str, list[list[Any]]]


class Operations(OperatedRpc):
    """RPC methods that every service with a database inherits."""

    work: Any  # the service's own: work: UnitOfWork = Work(Base)
    outbox = Outbox()
    dead_letters = DeadLetterStore()
    tracing = Tracing()
    redis: RedisHealth = Redis()

    @rpc(transaction=False)
    def health(self) -> Health:
        parts = {"database": "ok", "redis": "ok" if self.redis.ping() else "down: reads are slower"}
        try:
            with eventlet.Timeout(DATABASE_SECONDS):
                self.work.is_healthy()
        except ServiceError as error:
            parts["database"] = str(error)
        except eventlet.Timeout:
            parts["database"] = "does not respond"
        return {"status": "ok" if parts["database"] == "ok" else "failing", "parts": parts}

    @periodic(seconds=300, transaction=False)
    def forget_old_messages(self) -> None:
        """Delete old rows of the inbox, the idempotency keys and the dead letters, so that the tables stay bounded."""
        retention.delete_expired(self.work)

    @rpc(admin=True)
    def list_dead_letters(self, wanted: DeadLetterFilter, *, actor: Actor = OPERATOR) -> Json[Page[DeadLetterView]]:
        before = None if wanted.cursor is None else parse_id("cursor", wanted.cursor)
        items = self.dead_letters.list(
            self.work.session,
            wanted.limit + 1,
            before,
            replayed=wanted.replayed,
            queue=wanted.queue,
            event_type=wanted.event,
        )
        more = len(items) > wanted.limit
        items = items[: wanted.limit]
        page = {"items": items, "next_cursor": items[-1]["id"] if more else None}
        return cast("Json[Page[DeadLetterView]]", page)

    @rpc(admin=True)
    def replay_dead_letter(self, dead_letter_id: UUID, *, actor: Actor = OPERATOR) -> Json[DeadLetterView]:
        by = str(actor.user_id or "the operator")
        return cast("Json[DeadLetterView]", self.dead_letters.replay(self.work.session, dead_letter_id, by))

    @rpc(admin=True)
    def discard_dead_letter(self, dead_letter_id: UUID, *, actor: Actor = OPERATOR) -> None:
        self.dead_letters.discard(self.work.session, dead_letter_id)

    @rpc(transaction=False, admin=True)
    def audit(self, since: str, bounds: Sequence[str] = (), *, actor: Actor = OPERATOR) -> Audit:
        span = Span.of(since, bounds)
        with read_snapshot(self.work, current_trace().remaining(AUDIT_SECONDS)) as session:
            own = self.audit_own_data(session, span)
            return {
                "outbox": outbox_summary(self.work),
                "dead_letters": self.dead_letters.summary(session, SHOWN_IDS),
                "checks": own["checks"],
                "fingerprints": own["fingerprints"],
            }

    def audit_own_data(self, _session: Session, _span: Span) -> OwnAudit:
        """Return the checks that the service can make alone, and the fingerprints of its records about orders."""
        return {"checks": [], "fingerprints": {}}
