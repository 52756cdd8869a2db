"""The metrics of the extensions: one class per extension, so that the extensions contain little code for metrics.

Operators rely on the names and meanings; docs/metrics.md lists them.
"""

import math
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any
from uuid import UUID

from contracts.errors import ServiceError
from contracts.events import EVENTS, queue_name
from contracts.ids import made_at
from extensions.observability.metrics import SECONDS, Metrics
from extensions.runtime.circuit_breaker import State

OUTCOMES = {503: "unavailable", 504: "timeout"}
AGES = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
BATCHES = (1, 2, 5, 10, 20, 50, 100)
UNKNOWN = (math.nan, math.nan, math.nan)
CIRCUIT_STATES = (State.CLOSED, State.HALF_OPEN, State.OPEN)
OTHER = "other"


class CallInstruments:
    """Durations of RPC calls by outcome: ok, refused (4xx), unavailable, timeout, failed."""

    def __init__(self, metrics: Metrics, name: str, text: str, *labels: str) -> None:
        self._metrics, self._name, self._text, self._labels = metrics, name, text, labels
        self._series: dict[tuple[str, ...], Any] = {}

    def ended(self, seconds: float, error: BaseException | None, *values: str) -> None:
        """Record a call that took `seconds`; `values` are those of the labels."""
        key = (*values, outcome_of(error))
        series = self._series.get(key)
        if series is None:
            labels = dict(zip((*self._labels, "outcome"), key, strict=True))
            series = self._series[key] = self._metrics.histogram(self._name, self._text, SECONDS, **labels)
        series.observe(seconds)


class GuardInstruments:
    """The bulkhead and the circuit breaker in front of one called service."""

    def __init__(self, metrics: Metrics, service: str) -> None:
        self._metrics, self._service = metrics, service
        refused = "Calls refused before they were sent: as many as allowed wait (busy), or the circuit is open (open)."
        self._refused = {
            reason: metrics.counter("rpc_calls_refused_total", refused, service=service, reason=reason)
            for reason in ("busy", "open")
        }
        self._opened = metrics.counter("rpc_circuit_opened_total", "Times that the circuit opened.", service=service)

    def watch(self, in_flight: Callable[[], int], state: Callable[[], State]) -> None:
        """Export the number of calls that run or wait, and the state of the circuit."""
        waiting = "Calls to the service that run or wait for their turn."
        self._metrics.gauge("rpc_calls_in_flight", waiting, in_flight, service=self._service)
        text = "0: closed, 1: half open (a probe is under way), 2: open."
        self._metrics.gauge("rpc_circuit_state", text, lambda: CIRCUIT_STATES.index(state()), service=self._service)

    def refused(self, reason: str) -> None:
        """Count a refused call; `reason` is busy or open."""
        self._refused[reason].inc()

    def changed(self, state: State) -> None:
        """Count a change of the circuit's state."""
        if state is State.OPEN:
            self._opened.inc()


def outcome_of(error: BaseException | None) -> str:
    """Return the outcome of a call that ended with `error`, as a label value."""
    if error is None:
        return "ok"
    status = error.status if isinstance(error, ServiceError) else 500
    return OUTCOMES.get(status, "refused" if status < 500 else "failed")


class HandlerInstruments:
    """The metrics of one event handler."""

    def __init__(self, metrics: Metrics, handler: str) -> None:
        self._handled = metrics.counter(
            "events_handled_total", "Events handled, including redelivered ones.", handler=handler
        )
        self.failed = metrics.counter(
            "events_failed_total", "Failures of the handler for a single event.", handler=handler
        )
        self.retried = metrics.counter(
            "events_retried_total",
            "Events sent to a retry queue: a failure, or a locked row.",
            handler=handler,
        )
        self._batch = metrics.histogram("events_batch_size", "Events per transaction.", BATCHES, handler=handler)
        self._seconds = metrics.histogram(
            "events_batch_seconds",
            "From taking a batch to its commit, with waits during outages.",
            handler=handler,
        )
        self._age = metrics.histogram(
            "events_age_seconds", "From the writing of a batch's first event to the commit.", AGES, handler=handler
        )

    def handled(self, count: int, began: float, first: UUID) -> None:
        """Record a committed batch: its size, its start (time.monotonic()), the message id of its first event."""
        self._handled.inc(count)
        self._batch.observe(count)
        self._seconds.observe(time.monotonic() - began)
        written = made_at(first)
        if written is not None:
            self._age.observe(max(0.0, time.time() - written))


class DeadLetterInstruments:
    """Stored dead letters by original queue."""

    def __init__(self, metrics: Metrics, service: str) -> None:
        # Create all series now: Prometheus sees no increase in a series whose first value is 1.
        queues = [queue_name(service, event) for event in EVENTS.values() if service in event.consumers]
        self._series = {
            queue: metrics.counter("dead_letters_total", "Messages kept as dead letters.", queue=queue)
            for queue in (*queues, f"rpc-{service}", OTHER)
        }

    def stored(self, queues: Iterable[str]) -> None:
        """Record stored dead letters by queue. An unknown queue counts as OTHER: the name comes from the message."""
        for queue in queues:
            self._series.get(queue, self._series[OTHER]).inc()


class DeletedDeadLetters:
    """Dead letters that were deleted because of their age or number, or because of a secret in them."""

    def __init__(self, metrics: Metrics) -> None:
        text = "Dead letters deleted because they were too old or too many, or held a secret that has expired."
        self._series = {
            bound: metrics.counter("dead_letters_deleted_total", text, bound=bound)
            for bound in ("age", "number", "secret")
        }

    def deleted(self, bound: str, count: int) -> None:
        """Record deleted dead letters; `bound` is `age`, `number` or `secret`."""
        self._series[bound].inc(count)


class OutboxInstruments:
    """Events that left the outbox, and events still in it."""

    def __init__(self, metrics: Metrics, service: str) -> None:
        events = [name for name, event in EVENTS.items() if event.producer == service]
        self._relayed = {
            event: metrics.counter("outbox_relayed_total", "Events that the broker took from the outbox.", event=event)
            for event in (*events, OTHER)
        }
        text = "Times that the broker did not take an event: no permission, no queue."
        self._refused = {
            event: metrics.counter("outbox_refused_total", text, event=event) for event in (*events, OTHER)
        }
        self.backlog: tuple[float, float, float] = UNKNOWN
        """The number of events, the age of the oldest in seconds, and how many are postponed, in the shared table."""
        counted, age = "Events in the outbox, counted to 10000.", "How long the oldest event of the outbox has waited."
        metrics.gauge("outbox_backlog", counted, lambda: self.backlog[0])
        metrics.gauge("outbox_oldest_seconds", age, lambda: self.backlog[1])
        put_aside = "Events of the outbox that the broker did not take so far, each tried again after a pause."
        metrics.gauge("outbox_put_aside", put_aside, lambda: self.backlog[2])

    def relayed(self, confirmed: Iterable[str], refused: Iterable[str]) -> None:
        """Record a batch: the types of the events that the broker confirmed, and of those that it did not take."""
        for series, event_types in ((self._relayed, confirmed), (self._refused, refused)):
            for event, count in Tally(event_types).items():
                series.get(event, series[OTHER]).inc(count)


class WorkItemInstruments:
    """Attempts of work items by kind and outcome, and items that are not finished."""

    def __init__(self, metrics: Metrics, kinds: Iterable[str], is_open: Callable[[str], bool]) -> None:
        self._attempts: dict[tuple[str, str], Any] = {}
        self.backlog: dict[str, tuple[int, int, float]] | None = {}
        """By kind: the items, those that fail, the age of the oldest in seconds. None during an outage."""
        for kind in kinds:
            for outcome in ("ok", "timeout", "failed"):
                self._attempts[kind, outcome] = metrics.histogram(
                    "work_attempt_seconds", "Executions of work items.", SECONDS, kind=kind, outcome=outcome
                )
            metrics.gauge("work_items", "Work items not finished, counted to 10000.", self._reader(kind, 0), kind=kind)
            metrics.gauge("work_items_failing", "Those that failed over and over.", self._reader(kind, 1), kind=kind)
            metrics.gauge("work_oldest_seconds", "The age of the oldest work item.", self._reader(kind, 2), kind=kind)
            metrics.gauge(
                "work_breaker_open",
                "Whether the circuit breaker of the work items is open.",
                partial(is_open, kind),
                kind=kind,
            )

    def attempted(self, kind: str, seconds: float, error: BaseException | None) -> None:
        """Record one execution."""
        outcome = "ok" if error is None else "timeout" if isinstance(error, TimeoutError) else "failed"
        self._attempts[kind, outcome].observe(seconds)

    def _reader(self, kind: str, which: int) -> Callable[[], float]:
        return lambda: math.nan if self.backlog is None else self.backlog.get(kind, (0, 0, 0.0))[which]


class CacheInstruments:
    """Cache hits and misses by kind of entry."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._series: dict[tuple[str, bool], Any] = {}

    def read(self, kind: str, *, hit: bool) -> None:
        """Record a read; while Redis is unavailable every read is a miss."""
        series = self._series.get((kind, hit))
        if series is None:
            labels = {"kind": kind, "result": "hit" if hit else "miss"}
            series = self._metrics.counter("cache_reads_total", "Reads of the cache.", **labels)
            self._series[kind, hit] = series
        series.inc()
