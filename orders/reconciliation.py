"""GET /admin/consistency: the books of all services against each other.

Orders can put the question because it owns the saga, and because nobody calls it: the call goes down only.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from contracts.errors import ServiceError
from contracts.operations import CheckView, ConsistencyView
from extensions.observability.traces import current_trace
from extensions.operations.audits import MAX_ROWS, SHOWN, Range, Span, differing, read_snapshot, unsent
from extensions.rpc.scatter_gather import call_each
from orders import audit
from orders.comparison import ORDER_CHECKS, broken_by, last_change

PARTICIPANTS = ("inventory", "payments", "notifications")
OTHERS = ("users", "catalog", *PARTICIPANTS)
ORDERS, BROKER = "orders", "the broker"
EVERYTHING_COMPARED = "everything_compared"
CHUNK = 20
MARGIN_SECONDS = 1.5
LONGEST_SECONDS = 300
# By so much sooner than our caller, we give up on a service that is silent, and can still say which it was.
ANSWER_SECONDS = 0.5
# So long an event may be in the hands of a consumer, which the broker does not tell.
SETTLING_SECONDS = 60


@dataclass
class Findings:
    """The orders that break an invariant: how many break which, and the ids of the first that were found."""

    counts: Counter[str] = field(default_factory=Counter)
    ids: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    settling: int = 0
    """Those of which something changed just now, and which are not counted as unsettled anyway."""

    def compare(self, order_id: str, order: Any, held: list[Any]) -> None:
        """Judge one order by what the participants hold of it."""
        broken = list(broken_by(order, *held))
        for name in broken:
            self.found(name, order_id)
        unsettled = order is not None and order["unsettled"]
        if broken and not unsettled and last_change(order, *held) < SETTLING_SECONDS:
            self.settling += 1

    def found(self, name: str, key: str) -> None:
        """Note one more that breaks the invariant `name`."""
        self.counts[name] += 1
        if len(self.ids[name]) < SHOWN:
            self.ids[name].append(key)

    def checks(self) -> list[CheckView]:
        """Return what was found, by the invariants."""
        names = (*ORDER_CHECKS, EVERYTHING_COMPARED)
        return [CheckView(name=name, count=self.counts[name], ids=tuple(self.ids[name])) for name in names]


class Reconciliation:
    """One look at all books."""

    def __init__(self, work: Any, dead_letters: Any, services: Any, queues: Any) -> None:
        self.work, self.dead_letters, self.queues = work, dead_letters, queues
        self.seconds = current_trace().remaining(LONGEST_SECONDS)
        self.deadline = time.monotonic() + self.seconds
        self.services = services.within(self.seconds - ANSWER_SECONDS)

    def look(self, since: datetime | None) -> ConsistencyView:
        """Compare everything; with `since`, only the orders that were made from then on."""
        with read_snapshot(self.work, self.seconds) as session:
            span = audit.span(session, audit.id_since(since))
        books = self._ask((ORDERS, BROKER, *OTHERS), lambda name: self._books(name, span))
        own = books[ORDERS]
        suspect = own["unsettled_ranges"].union(
            *(differing(own["fingerprints"], books[name]["fingerprints"]) for name in PARTICIPANTS)
        )
        return _view(books, self._compare(span, suspect, _overfull(books)))

    def _books(self, name: str, span: Span) -> Any:
        if name == BROKER:
            return self.queues.waiting()
        if name != ORDERS:
            return getattr(self.services, name).audit(**span.to_wire())
        with read_snapshot(self.work, self.seconds) as session:
            count, ranges = audit.unsettled(session, span)
            return {
                "outbox": unsent(self.work),
                "dead_letters": self.dead_letters.summary(session, SHOWN),
                "checks": audit.checks(session, span),
                "fingerprints": audit.expected(session, span),
                "unsettled": count,
                "unsettled_ranges": ranges,
            }

    def _compare(self, span: Span, suspect: set[int], overfull: set[int]) -> Findings:
        """Look into ranges one by one, the newest first, as long as there is time."""
        findings = Findings()
        left = sorted(suspect - overfull)
        while left and self.deadline - time.monotonic() > MARGIN_SECONDS:
            chunk = [span.range(left.pop()) for _ in range(min(CHUNK, len(left)))]
            rows = self._ask((ORDERS, *PARTICIPANTS), lambda name: self._rows(name, chunk))  # noqa: B023
            for order_id in sorted(set().union(*rows.values()), reverse=True):
                order, *held = (rows[name].get(order_id) for name in (ORDERS, *PARTICIPANTS))
                findings.compare(order_id, order, held)
        for number in sorted(overfull.intersection(suspect).union(left), reverse=True):
            findings.found(EVERYTHING_COMPARED, str(span.range(number)[0]))
        return findings

    def _rows(self, name: str, ranges: list[Range]) -> Any:
        if name != ORDERS:
            return getattr(self.services, name).audit_rows(ranges)
        with read_snapshot(self.work, self.seconds) as session:
            return audit.rows(session, ranges)

    def _ask(self, names: tuple[str, ...], ask: Any) -> dict[str, Any]:
        answers = call_each(names, ask)
        for answer in answers.values():
            if isinstance(answer, ServiceError):
                raise answer  # a sum without one of its parts would say that all is well
        return answers


def _overfull(books: Mapping[str, Any]) -> set[int]:
    """Return the ranges in which somebody holds more than can be compared one by one."""
    return {
        number
        for name in PARTICIPANTS
        for fingerprint in books[name]["fingerprints"].values()
        for number, count, _ in fingerprint
        if count > MAX_ROWS
    }


def _view(books: Mapping[str, Any], findings: Findings) -> ConsistencyView:
    own, waiting = books[ORDERS], books[BROKER]
    letters = [books[name]["dead_letters"] for name in (ORDERS, *OTHERS)]
    outboxes = [books[name]["outbox"] for name in (ORDERS, *OTHERS)]
    written = sum(outbox["count"] for outbox in outboxes)
    undelivered = sum(waiting.values())
    checks = [
        *(CheckView(**check) for name in (ORDERS, *OTHERS) for check in books[name]["checks"]),
        *findings.checks(),
        CheckView(name="outboxes_empty", count=written, ids=_first(outboxes)),
        CheckView(name="queues_empty", count=undelivered, ids=tuple(sorted(waiting))[:SHOWN]),
        CheckView(name="no_dead_letters", count=sum(letter["count"] for letter in letters), ids=_first(letters)),
    ]
    in_flight = written + undelivered + own["unsettled"] + findings.settling
    return ConsistencyView(at_rest=in_flight == 0, in_flight=in_flight, checks=tuple(checks))


def _first(summaries: list[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(sorted((one for summary in summaries for one in summary["ids"]), reverse=True)[:SHOWN])
