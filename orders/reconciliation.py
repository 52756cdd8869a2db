"""GET /admin/consistency: compares what all services store about the same orders.

The orders service makes the comparison, because it owns the saga. Only the gateway calls it, so calls form no cycle.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from contracts.errors import ServiceError
from contracts.operations import CheckView, ConsistencyView
from contracts.services import PARTICIPANTS, SERVICES, Services
from extensions.observability.traces import current_trace
from extensions.operations.audits import (
    MAX_ROWS,
    SHOWN_IDS,
    Range,
    Span,
    differing,
    outbox_summary,
    ranges_to_wire,
    read_snapshot,
)
from extensions.rpc.scatter_gather import call_each
from orders import audit
from orders.comparison import ORDER_CHECKS, broken_by, last_change

ORDERS, BROKER = "orders", "the broker"
OTHERS = tuple(service for service in SERVICES if service != ORDERS)
RANGES_NOT_COMPARED = "ranges_not_compared"
CHUNK = 20
MARGIN_SECONDS = 1.5
LONGEST_SECONDS = 300
# Calls time out this much earlier than the caller, so that the error can name the service that did not respond.
RESPONSE_SECONDS = 0.5
# The depth of a queue does not include unacknowledged events. After this time their consumers should have finished.
RECENT_SECONDS = 60


@dataclass
class Findings:
    """The orders that break an invariant: the count for each invariant, and the ids of the first orders found."""

    counts: Counter[str] = field(default_factory=Counter)
    ids: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    recent: int = 0
    """Broken orders that changed less than RECENT_SECONDS ago, without those that are counted as unsettled."""

    def compare(self, order_id: str, order: Any, held: Mapping[str, Any]) -> None:
        """Check one order against what the participants store about it."""
        broken = list(broken_by(order, held))
        for name in broken:
            self.add(name, order_id)
        unsettled = order is not None and order["unsettled"]
        if broken and not unsettled and last_change(order, *held.values()) < RECENT_SECONDS:
            self.recent += 1

    def add(self, name: str, key: str) -> None:
        """Count one more order that breaks the invariant `name`."""
        self.counts[name] += 1
        if len(self.ids[name]) < SHOWN_IDS:
            self.ids[name].append(key)

    def checks(self) -> list[CheckView]:
        """Return one check for each invariant."""
        names = (*ORDER_CHECKS, RANGES_NOT_COMPARED)
        return [CheckView(name=name, count=self.counts[name], ids=tuple(self.ids[name])) for name in names]


class Reconciliation:
    """One comparison of all services' data."""

    def __init__(self, work: Any, dead_letters: Any, services: Services, queues: Any) -> None:
        self.work, self.dead_letters, self.queues = work, dead_letters, queues
        self.seconds = current_trace().remaining(LONGEST_SECONDS)
        self.deadline = time.monotonic() + self.seconds
        self.services = services.within(self.seconds - RESPONSE_SECONDS)

    def run(self, since: datetime | None) -> ConsistencyView:
        """Compare everything; with `since`, only the orders created from then on."""
        with read_snapshot(self.work, self.seconds) as session:
            span = audit.span(session, audit.id_since(since))
        summaries = self._call_all((ORDERS, BROKER, *OTHERS), lambda name: self._summary(name, span))
        own = summaries[ORDERS]
        suspect = own["unsettled_ranges"].union(
            *(differing(own["fingerprints"], summaries[name]["fingerprints"]) for name in PARTICIPANTS)
        )
        return _view(summaries, self._compare(span, suspect, _too_large(summaries)))

    def _summary(self, name: str, span: Span) -> Any:
        if name == BROKER:
            return self.queues.waiting()
        if name != ORDERS:
            return self.services.operated(name).audit(**span.to_wire())
        with read_snapshot(self.work, self.seconds) as session:
            count, ranges = audit.unsettled(session, span)
            return {
                "outbox": outbox_summary(self.work),
                "dead_letters": self.dead_letters.summary(session, SHOWN_IDS),
                "checks": audit.checks(session, span),
                "fingerprints": audit.expected(session, span),
                "unsettled": count,
                "unsettled_ranges": ranges,
            }

    def _compare(self, span: Span, suspect: set[int], too_large: set[int]) -> Findings:
        """Compare ranges order by order, the newest range first, until the time is up."""
        findings = Findings()
        left = sorted(suspect - too_large)
        while left and self.deadline - time.monotonic() > MARGIN_SECONDS:
            chunk = [span.range(left.pop()) for _ in range(min(CHUNK, len(left)))]
            rows = self._call_all((ORDERS, *PARTICIPANTS), lambda name: self._rows(name, chunk))  # noqa: B023
            for order_id in sorted(set().union(*rows.values()), reverse=True):
                held = {name: rows[name].get(order_id) for name in PARTICIPANTS}
                findings.compare(order_id, rows[ORDERS].get(order_id), held)
        for number in sorted(too_large.intersection(suspect).union(left), reverse=True):
            findings.add(RANGES_NOT_COMPARED, str(span.range(number)[0]))
        return findings

    def _rows(self, name: str, ranges: list[Range]) -> Any:
        if name != ORDERS:
            return self.services.participant(name).audit_rows(ranges_to_wire(ranges))
        with read_snapshot(self.work, self.seconds) as session:
            return audit.rows(session, ranges)

    def _call_all(self, names: tuple[str, ...], call: Any) -> dict[str, Any]:
        results = call_each(names, call)
        for result in results.values():
            if isinstance(result, ServiceError):
                raise result  # a report without one service would look as if all were well
        return results


def _too_large(summaries: Mapping[str, Any]) -> set[int]:
    """Return the ranges in which a service holds more rows than can be compared one by one."""
    return {
        number
        for name in PARTICIPANTS
        for fingerprint in summaries[name]["fingerprints"].values()
        for number, count, _ in fingerprint
        if count > MAX_ROWS
    }


def _view(summaries: Mapping[str, Any], findings: Findings) -> ConsistencyView:
    own, waiting = summaries[ORDERS], summaries[BROKER]
    letters = [summaries[name]["dead_letters"] for name in (ORDERS, *OTHERS)]
    outboxes = [summaries[name]["outbox"] for name in (ORDERS, *OTHERS)]
    written = sum(outbox["count"] for outbox in outboxes)
    undelivered = sum(waiting.values())
    checks = [
        *(CheckView(**check) for name in (ORDERS, *OTHERS) for check in summaries[name]["checks"]),
        *findings.checks(),
        CheckView(name="outboxes_empty", count=written, ids=_first(outboxes)),
        CheckView(name="queues_empty", count=undelivered, ids=tuple(sorted(waiting))[:SHOWN_IDS]),
        CheckView(name="no_dead_letters", count=sum(letter["count"] for letter in letters), ids=_first(letters)),
    ]
    in_flight = written + undelivered + own["unsettled"] + findings.recent
    return ConsistencyView(at_rest=in_flight == 0, in_flight=in_flight, checks=tuple(checks))


def _first(summaries: list[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(sorted((one for summary in summaries for one in summary["ids"]), reverse=True)[:SHOWN_IDS])
