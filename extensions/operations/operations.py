"""The RPC methods that every service with a database has: health, dead letters and its part of an audit."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, cast
from uuid import UUID

import eventlet
from nameko.extensions import DependencyProvider
from sqlalchemy import Row
from sqlalchemy.orm import Session

from contracts.base import OPERATOR, Actor, Json, Page, PageRequest, Replayed, page_of
from contracts.errors import InternalError, ServiceError
from contracts.ids import parse_id
from contracts.operations import (
    Audit,
    BacklogView,
    CheckResult,
    DeadLetterFilter,
    DeadLetterGroup,
    DeadLetterResult,
    DeadLetterResults,
    DeadLetterSelection,
    DeadLetterView,
    Health,
    HealthStatus,
    OperatedRpc,
    RefusedEvent,
)
from extensions.cache.connection import Redis, RedisHealth
from extensions.idempotency.calls import run_once
from extensions.messaging.dead_letter_bounds import DeadLetterBounds
from extensions.messaging.dead_letter_store import DeadLetterStore, Transact
from extensions.messaging.outbox_relay import Outbox
from extensions.observability.circuits import Circuits, CircuitsProvider
from extensions.observability.traces import RedisWait, current_trace, start_trace
from extensions.operations.audits import SHOWN_IDS, Span, outbox_summary, read_snapshot
from extensions.rpc.call_format import budget_of
from extensions.rpc.server import rpc
from extensions.runtime.progress import Loops, loops_of
from extensions.storage import retention
from extensions.storage.outbox import backlog, list_refused
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
        waited = time.monotonic() - worker_ctx.data.pop("arrived")
        budget = budget_of(message)
        headers, budget = message.headers or {}, None if budget is None else budget - waited
        start_trace(headers, worker_ctx.service_name, budget, RedisWait.of(headers))


class LoopsProvider(DependencyProvider):
    """Gives a service the progress of its loops: `loops: Loops = LoopsProvider()`."""

    def get_dependency(self, worker_ctx: Any) -> Loops:
        """Return the loops of this process."""
        return loops_of(worker_ctx.container)


class OwnAudit(TypedDict):
    """The service's part of its Audit: its own checks, and the fingerprints of its records about orders."""

    checks: list[CheckResult]
    fingerprints: dict[str, list[list[Any]]]


@dataclass(frozen=True, slots=True)
class _Each:
    """What a call does with each of several dead letters, for whom, and under which idempotency key."""

    method: str
    outcome: Literal["replayed", "discarded"]
    actor: Actor
    key: str | None


class Operations(OperatedRpc):
    """RPC methods that every service with a database inherits."""

    name: str
    work: Any  # the service's own: work: UnitOfWork = Work(Base)
    outbox = Outbox()
    dead_letters = DeadLetterStore()
    dead_letter_bounds = DeadLetterBounds()
    tracing = Tracing()
    redis: RedisHealth = Redis()
    loops: Loops = LoopsProvider()
    circuits: Circuits = CircuitsProvider()

    @rpc(transaction=False)
    def health(self) -> Health:
        """Report each part. A stuck loop makes the service `failing`: a restart ends this.

        Without the database or publishing it is `degraded`. Without Redis only the part `redis` changes.
        """
        parts = {"database": "ok", "redis": "ok" if self.redis.ping() else "down: reads are slower"}
        try:
            with eventlet.Timeout(DATABASE_SECONDS):
                self.work.is_healthy()
        except ServiceError as error:
            parts["database"] = str(error)
        except eventlet.Timeout:
            parts["database"] = "does not respond"
        parts["publishing"] = self.outbox.broker_problem or "ok"
        parts["loops"] = self.loops.problem() or "ok"
        is_served = parts["database"] == parts["publishing"] == "ok"
        status: HealthStatus = "failing" if parts["loops"] != "ok" else "ok" if is_served else "degraded"
        return {"status": status, "parts": parts}

    @periodic(seconds=300, transaction=False)
    def forget_old_messages(self) -> None:
        """Delete old rows of the inbox, the idempotency keys and the dead letters, so that the tables stay bounded."""
        retention.delete_expired(self.work)

    @periodic(seconds=60, transaction=False)
    def bound_dead_letters(self) -> None:
        """Delete the oldest dead letters beyond the greatest age and number."""
        self.dead_letter_bounds.enforce(self.work)

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
            group=wanted.group,
            correlation_id=wanted.correlation_id,
        )
        more = len(items) > wanted.limit
        items = items[: wanted.limit]
        page = {"items": items, "next_cursor": items[-1]["id"] if more else None}
        return cast("Json[Page[DeadLetterView]]", page)

    @rpc(transaction=False, admin=True)
    def replay_dead_letter(
        self, dead_letter_id: UUID, *, actor: Actor = OPERATOR, idempotency_key: str | None = None
    ) -> Json[DeadLetterView]:
        each = _Each("replay_dead_letter", "replayed", actor, idempotency_key)
        return cast("Json[DeadLetterView]", self._replay(dead_letter_id, each))

    @rpc(transaction=False, admin=True)
    def discard_dead_letter(self, dead_letter_id: UUID, *, actor: Actor = OPERATOR) -> None:
        self._discard(dead_letter_id, _Each("discard_dead_letter", "discarded", actor, None))

    @rpc(admin=True)
    def group_dead_letters(self, *, actor: Actor = OPERATOR) -> list[Json[DeadLetterGroup]]:
        return cast("list[Json[DeadLetterGroup]]", self.dead_letters.groups(self.work.session))

    @rpc(transaction=False, admin=True)
    def replay_dead_letters(
        self, selection: DeadLetterSelection, *, actor: Actor = OPERATOR, idempotency_key: str | None = None
    ) -> Json[DeadLetterResults]:
        each = _Each("replay_dead_letters", "replayed", actor, idempotency_key)
        return self._each(selection, each, self._replay)

    @rpc(transaction=False, admin=True)
    def discard_dead_letters(
        self, selection: DeadLetterSelection, *, actor: Actor = OPERATOR, idempotency_key: str | None = None
    ) -> Json[DeadLetterResults]:
        each = _Each("discard_dead_letters", "discarded", actor, idempotency_key)
        return self._each(selection, each, self._discard)

    def _replay(self, dead_letter_id: UUID, each: _Each) -> Any:
        by = str(each.actor.user_id or "the operator")
        return self.dead_letters.replay(self._once(dead_letter_id, each), dead_letter_id, by)

    def _discard(self, dead_letter_id: UUID, each: _Each) -> None:
        self.dead_letters.discard(self._once(dead_letter_id, each), dead_letter_id)

    def _once(self, dead_letter_id: UUID, each: _Each) -> Transact:
        """Return what runs a step for a dead letter in a transaction, with a key at most once."""
        asked = {"dead_letter_id": str(dead_letter_id), "actor": each.actor}
        method = f"{each.method}/{dead_letter_id}"
        return lambda step: run_once(self.work, method, each.key, asked, lambda: step(self.work.session))

    def _each(
        self, selection: DeadLetterSelection, each: _Each, act: Callable[[UUID, _Each], object]
    ) -> Json[DeadLetterResults]:
        """Do something with each selected dead letter, by itself: one failure concerns no other.

        The idempotency key holds for the selection and for each dead letter: a repeated call goes on where the first
        one ended, with the dead letters that it selected.
        """
        asked = {**selection.model_dump(mode="json"), "actor": each.actor}

        def select() -> dict[str, Any]:
            ids, remaining = self.dead_letters.select(self.work.session, selection)
            return {"ids": [str(dead_letter_id) for dead_letter_id in ids], "remaining": remaining}

        selected = run_once(self.work, each.method, each.key, asked, select)
        results = [self._one(UUID(dead_letter_id), each, act) for dead_letter_id in selected["ids"]]
        found = DeadLetterResults(items=tuple(results), remaining=selected["remaining"]).to_dict()
        return cast("Json[DeadLetterResults]", Replayed(found)) if isinstance(selected, Replayed) else found

    def _one(self, dead_letter_id: UUID, each: _Each, act: Callable[[UUID, _Each], object]) -> DeadLetterResult:
        try:
            act(dead_letter_id, each)
        except ServiceError as error:
            return DeadLetterResult(id=dead_letter_id, outcome="failed", code=error.code, detail=str(error))
        except Exception:
            log.exception("dead letter %s could not be %s", dead_letter_id, each.outcome)
            failure = InternalError()
            return DeadLetterResult(id=dead_letter_id, outcome="failed", code=failure.code, detail=str(failure))
        return DeadLetterResult(id=dead_letter_id, outcome=each.outcome)

    @rpc(admin=True)
    def list_refused_events(self, wanted: PageRequest, *, actor: Actor = OPERATOR) -> Json[Page[RefusedEvent]]:
        before = None if wanted.cursor is None else parse_id("cursor", wanted.cursor)
        rows = list_refused(self.work.session, self.work.table("outbox"), wanted.limit + 1, before)
        views = [self._refused_event(row) for row in rows[: wanted.limit]]
        return page_of(views, str(views[-1].id) if len(rows) > wanted.limit else None)

    def _refused_event(self, row: Row[Any]) -> RefusedEvent:
        return RefusedEvent(
            id=row.message_id,
            service=self.name,
            event=row.event_type,
            correlation_id=row.correlation_id,
            error=row.last_error or "",
            attempts=row.attempts,
            next_try_at=row.due_at,
            created_at=row.created_at,
        )

    @rpc(admin=True)
    def report_backlog(self, *, actor: Actor = OPERATOR) -> Json[BacklogView]:
        count, oldest, refused = backlog(self.work.session, self.work.table("outbox"))
        view = BacklogView(
            outbox=int(count),
            outbox_oldest_seconds=round(oldest, 1),
            refused_events=int(refused),
            dead_letters=self.dead_letters.count(self.work.session),
            circuits=tuple(self.circuits.all()),
        )
        return view.to_dict()

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
