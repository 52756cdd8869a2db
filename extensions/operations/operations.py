"""What every service offers its operators: its health, and its dead letters."""

import logging
from typing import Any

import eventlet
from nameko.extensions import DependencyProvider

from contracts.base import Actor
from contracts.errors import ServiceError
from contracts.ids import parse_id
from contracts.operations import DeadLetterFilter
from extensions.cache.connection import Redis
from extensions.messaging.dead_letters import DeadLetterStore
from extensions.messaging.outbox_relay import Outbox
from extensions.observability.traces import current_trace, start_trace
from extensions.operations.audits import SHOWN, Span, read_snapshot, unsent
from extensions.rpc.server import rpc
from extensions.storage import retention
from extensions.storage.periodic import periodic

log = logging.getLogger(__name__)

AUDIT_SECONDS = 300
# Less than the gateway waits for a service's health: a silent database is named, and not the service.
DATABASE_SECONDS = 1.0


class Tracing(DependencyProvider):
    """Continues the caller's trace in the worker of an RPC call."""

    def worker_setup(self, worker_ctx: Any) -> None:
        """Read the trace, and how long the caller waits, from the call's message."""
        message = worker_ctx.data.pop("message", None)
        if message is None:
            return
        expiration = str(message.properties.get("expiration") or "")
        budget = int(expiration) / 1000 if expiration.isdigit() else None
        start_trace(message.headers or {}, worker_ctx.service_name, budget)


class Operations:
    """RPC methods that every service with a database inherits."""

    work: Any  # the service's own: work = Work(Base)
    outbox = Outbox()
    dead_letters = DeadLetterStore()
    tracing = Tracing()
    redis = Redis()

    @rpc(transaction=False)
    def health(self):
        """Tell what works: {"status": "ok" | "failing", "parts": {part: "ok" | what is wrong}}."""
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
        """Keep the tables of messaging bounded: forget what the inbox and the idempotency keys need no longer."""
        retention.forget(self.work)

    @rpc
    def list_dead_letters(self, limit=20, cursor=None, queue=None, event=None, replayed=False, actor=None):
        """List what could not be handled and was not replayed yet (or was), newest first."""
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
        """Put a dead letter back into the queue it came from; it stays on record, with the time of the replay."""
        who = Actor.of(actor)
        who.require_admin()
        by = str(who.user_id or "the operator")
        return self.dead_letters.replay(self.work.session, parse_id("dead_letter_id", dead_letter_id), by)

    @rpc
    def discard_dead_letter(self, dead_letter_id, actor=None):
        """Give a dead letter up for good: what it said will not be done."""
        Actor.of(actor).require_admin()
        self.dead_letters.discard(self.work.session, parse_id("dead_letter_id", dead_letter_id))

    @rpc(transaction=False)
    def audit(self, since, bounds=(), actor=None):
        """Tell what of this service's books can be told without the others': see orders/reconciliation.py."""
        Actor.of(actor).require_admin()
        span = Span.of(since, bounds)
        with read_snapshot(self.work, current_trace().remaining(AUDIT_SECONDS)) as session:
            return {
                "outbox": unsent(self.work),
                "dead_letters": self.dead_letters.summary(session, SHOWN),
                **self.own_books(session, span),
            }

    def own_books(self, _session, _span):
        """Return the checks that the service can make alone, and the fingerprints of what it holds for orders."""
        return {"checks": [], "fingerprints": {}}
