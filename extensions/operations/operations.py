"""The methods for operators that every service with a database inherits."""

import logging
from typing import Any

import eventlet
from nameko.extensions import DependencyProvider

from contracts.base import Actor
from contracts.errors import ServiceError
from contracts.ids import parse_id
from contracts.operations import DeadLetterFilter
from extensions.cache.connection import Redis
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


class Operations:
    """RPC methods that every service with a database inherits."""

    work: Any  # set by the service: work = Work(Base)
    outbox = Outbox()
    dead_letters = DeadLetterStore()
    tracing = Tracing()
    redis = Redis()

    @rpc(transaction=False)
    def health(self):
        """Return {"status": "ok" | "failing", "parts": {part: "ok" | description of the problem}}."""
        parts = {"database": "ok", "redis": "ok" if self.redis.ping() else "down: reads are slower"}
        try:
            with eventlet.Timeout(DATABASE_SECONDS):
                self.work.is_healthy()
        except ServiceError as error:
            parts["database"] = str(error)
        except eventlet.Timeout:
            parts["database"] = "does not answer"
        return {"status": "ok" if parts["database"] == "ok" else "failing", "parts": parts}

    @periodic(seconds=300, transaction=False)
    def forget_old_messages(self):
        """Delete old rows of the inbox, the idempotency keys and the dead letters, so that the tables stay bounded."""
        retention.delete_expired(self.work)

    @rpc
    def list_dead_letters(self, limit=20, cursor=None, queue=None, event=None, replayed=False, actor=None):
        """List dead letters that were not replayed yet (or that were, with `replayed`), newest first."""
        Actor.of(actor).require_admin()
        wanted = DeadLetterFilter.parse(
            {"limit": limit, "cursor": cursor, "queue": queue, "event": event, "replayed": replayed}
        )
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
        return {"items": items, "next_cursor": items[-1]["id"] if more else None}

    @rpc
    def replay_dead_letter(self, dead_letter_id, actor=None):
        """Publish a dead letter to its original queue again; it is kept, with the time of the replay."""
        who = Actor.of(actor)
        who.require_admin()
        by = str(who.user_id or "the operator")
        return self.dead_letters.replay(self.work.session, parse_id("dead_letter_id", dead_letter_id), by)

    @rpc
    def discard_dead_letter(self, dead_letter_id, actor=None):
        """Delete a dead letter without replaying it: it will never be handled."""
        Actor.of(actor).require_admin()
        self.dead_letters.discard(self.work.session, parse_id("dead_letter_id", dead_letter_id))

    @rpc(transaction=False)
    def audit(self, since, bounds=(), actor=None):
        """Return the checks of this service's own data and its fingerprints: see orders/reconciliation.py."""
        Actor.of(actor).require_admin()
        span = Span.of(since, bounds)
        with read_snapshot(self.work, current_trace().remaining(AUDIT_SECONDS)) as session:
            return {
                "outbox": outbox_summary(self.work),
                "dead_letters": self.dead_letters.summary(session, SHOWN_IDS),
                **self.audit_own_data(session, span),
            }

    def audit_own_data(self, _session, _span):
        """Return the checks that the service can make alone, and the fingerprints of its rows about orders."""
        return {"checks": [], "fingerprints": {}}
