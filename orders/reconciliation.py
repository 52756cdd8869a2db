"""GET /admin/consistency: the books of all services against each other.

Orders can put the question because it owns the saga, and because nobody calls it: the call goes down only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from contracts.errors import ServiceError
from contracts.operations import CheckView, ConsistencyView
from extensions.audits import MAX_ROWS, SHOWN, Span, differing, moment, rows_of, unsent
from extensions.fan_out import ask_each
from extensions.telemetry import current_trace
from orders import audit
from orders.comparison import ORDER_CHECKS, broken_by, last_change

PARTICIPANTS = ("inventory", "payments", "notifications")
OTHERS = ("users", "catalog", *PARTICIPANTS)
ORDERS, BROKER = "orders", "the broker"
MAX_LOOKED_INTO = 40
LONGEST_SECONDS = 300
# So long an event may be in the hands of a consumer, which the broker does not tell.
SETTLING_SECONDS = 60


@dataclass
class Findings:
    """The orders that break an invariant."""

    ids: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in ORDER_CHECKS})
    settling: set[str] = field(default_factory=set)
    """Those of which something changed just now, and which are not counted as unsettled anyway."""

    def compare(self, order_id: str, order: Any, held: list[Any]) -> None:
        """Judge one order by what the participants hold of it."""
        broken = list(broken_by(order, *held))
        for name in broken:
            self.ids[name].append(order_id)
        unsettled = order is not None and order["unsettled"]
        if broken and not unsettled and last_change(order, *held) < SETTLING_SECONDS:
            self.settling.add(order_id)


class Reconciliation:
    """One look at all books."""

    def __init__(self, work: Any, services: Any, queues: Any) -> None:
        self.work, self.queues = work, queues
        self.seconds = current_trace().remaining(LONGEST_SECONDS)
        self.services = services.within(self.seconds)

    def look(self, since: datetime | None) -> ConsistencyView:
        """Compare everything; with `since`, only the orders that were made from then on."""
        with moment(self.work, self.seconds) as session:
            span = audit.span(session, audit.id_since(since))
        books = self._ask((ORDERS, BROKER, *OTHERS), lambda name: self._books(name, span))
        own = books[ORDERS]
        suspect = own["unsettled_ranges"].union(
            *(differing(own["fingerprints"], books[name]["fingerprints"]) for name in PARTICIPANTS)
        )
        overfull = _overfull(books)
        looked_into = sorted(suspect - overfull, reverse=True)[:MAX_LOOKED_INTO]
        findings = self._compare([span.range(number) for number in looked_into])
        left_out = sorted(suspect - set(looked_into), reverse=True)
        return _view(books, findings, [str(span.range(number)[0]) for number in left_out])

    def _books(self, name: str, span: Span) -> Any:
        if name == BROKER:
            return self.queues.waiting()
        if name != ORDERS:
            return getattr(self.services, name).audit(**span.to_wire())
        with moment(self.work, self.seconds) as session:
            count, ranges = audit.unsettled(session, span)
            return {
                "outbox": unsent(self.work),
                "dead_letters": self.work.dead_letters.summary(session, SHOWN),
                "checks": audit.checks(session, span),
                "fingerprints": audit.expected(session, span),
                "unsettled": count,
                "unsettled_ranges": ranges,
            }

    def _compare(self, ranges: list[Any]) -> Findings:
        findings = Findings()
        if not ranges:
            return findings
        rows = self._ask((ORDERS, *PARTICIPANTS), lambda name: self._rows(name, ranges))
        for order_id in set().union(*rows.values()):
            order, *held = (rows[name].get(order_id) for name in (ORDERS, *PARTICIPANTS))
            findings.compare(order_id, order, held)
        return findings

    def _rows(self, name: str, ranges: list[Any]) -> Any:
        if name != ORDERS:
            return getattr(self.services, name).audit_rows(ranges)
        with moment(self.work, self.seconds) as session:
            return rows_of(ranges, partial(audit.rows, session))

    def _ask(self, names: tuple[str, ...], ask: Any) -> dict[str, Any]:
        answers = ask_each(names, ask)
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


def _view(books: Mapping[str, Any], findings: Findings, left_out: list[str]) -> ConsistencyView:
    own, waiting = books[ORDERS], books[BROKER]
    letters = [books[name]["dead_letters"] for name in (ORDERS, *OTHERS)]
    outboxes = [books[name]["outbox"] for name in (ORDERS, *OTHERS)]
    written = sum(outbox["count"] for outbox in outboxes)
    undelivered = sum(waiting.values())
    checks = [
        *(CheckView(**check) for name in (ORDERS, *OTHERS) for check in books[name]["checks"]),
        *(_check(name, ids) for name, ids in findings.ids.items()),
        _check("everything_compared", left_out),
        CheckView(name="outboxes_empty", count=written, ids=_first(outboxes)),
        CheckView(name="queues_empty", count=undelivered, ids=tuple(sorted(waiting))[:SHOWN]),
        CheckView(name="no_dead_letters", count=sum(letter["count"] for letter in letters), ids=_first(letters)),
    ]
    in_flight = written + undelivered + own["unsettled"] + len(findings.settling)
    return ConsistencyView(at_rest=in_flight == 0, in_flight=in_flight, checks=tuple(checks))


def _check(name: str, ids: list[str]) -> CheckView:
    return CheckView(name=name, count=len(ids), ids=tuple(sorted(ids, reverse=True)[:SHOWN]))


def _first(summaries: list[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(sorted((one for summary in summaries for one in summary["ids"]), reverse=True)[:SHOWN])
