"""Comparison of the data that several services hold about the same orders, without transferring all of it.

The order ids are divided into ranges of a hundred orders or more. For each range a service returns the number of its
rows and the sum of their hashes; only ranges that differ are compared row by row. So the comparison of millions of
orders takes a few aggregate queries.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Integer, Uuid, and_, bindparam, cast, false, func, or_, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from contracts.errors import UpstreamTimeout
from contracts.ids import parse_id
from contracts.operations import CheckResult, Summary
from extensions.storage import outbox
from extensions.storage.response_timeout import response_timeout

SHOWN_IDS = 20
"""A check reports at most this many ids."""
# We wait for this much longer than statement_timeout: PostgreSQL then reports the timeout itself.
MARGIN_SECONDS = 1.0
QUERY_CANCELED = "57014"
MAX_ROWS = 20_000
"""A range with more rows than this is not compared row by row."""

Range = tuple[UUID, UUID | None]
"""The first id of a range, and the first id after it (None for the last range)."""

Fingerprints = list[list[Any]]
"""A list of [number of the range, number of rows, sum of their hashes]; ranges without rows are omitted."""


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive ranges of ids. The first starts at `since`, the others at the sorted `bounds`; the last is open."""

    since: UUID
    bounds: tuple[UUID, ...]

    @classmethod
    def of(cls, since: str, bounds: Sequence[str]) -> "Span":
        """Parse the arguments of an RPC call. Raises ValidationFailed."""
        return cls(parse_id("since", since), tuple(parse_id("bounds", bound) for bound in bounds))

    def to_wire(self) -> dict[str, Any]:
        """Return the arguments for an RPC call."""
        return {"since": str(self.since), "bounds": [str(bound) for bound in self.bounds]}

    def range(self, number: int) -> Range:
        """Return the range with this number."""
        low = self.bounds[number - 1] if number else self.since
        return low, self.bounds[number] if number < len(self.bounds) else None

    def number(self, key: Any) -> ColumnElement[int]:
        """Return the SQL for the number of the range that contains `key`."""
        bounds = cast(bindparam("bounds", list(self.bounds), unique=True), ARRAY(Uuid))
        return func.width_bucket(key, bounds)


def within(key: Any, ranges: Sequence[Range]) -> ColumnElement[bool]:
    """Return the SQL condition that one of `ranges` contains `key`."""
    return or_(false(), *(key >= low if high is None else and_(key >= low, key < high) for low, high in ranges))


def seconds_since(time: Any) -> ColumnElement[int]:
    """Return the SQL for the seconds since `time` by the database's clock; negative if that was set back."""
    return cast(func.extract("epoch", func.clock_timestamp() - time), Integer)


@contextmanager
def read_snapshot(work: Any, seconds: float) -> Iterator[Session]:
    """Open a read-only transaction in which all statements see the same snapshot; each may take `seconds`."""
    with _timeouts_translated(), response_timeout(seconds + MARGIN_SECONDS), work.transaction() as session:
        session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
        session.execute(select(func.set_config("statement_timeout", str(max(1, int(seconds * 1000))), True)))
        yield session


@contextmanager
def _timeouts_translated() -> Iterator[None]:
    """Translate a statement timeout into UpstreamTimeout."""
    try:
        yield
    except DBAPIError as error:
        if getattr(error.orig, "pgcode", None) != QUERY_CANCELED:
            raise
        detail = "There are too many orders to compare them all in time. Pass a later time as `since`."
        raise UpstreamTimeout(detail) from error


def outbox_summary(work: Any) -> Summary:
    """Return the number of events in the outbox, and the message ids of the oldest."""
    found = outbox.summary(work.session, work.table("outbox"), SHOWN_IDS)
    return {"count": found["count"], "ids": found["ids"]}


def fingerprints(session: Session, span: Span, key: Any, columns: Sequence[Any], *where: Any) -> Fingerprints:
    """Return the fingerprints of the rows that satisfy `where`, over the id `key` and the `columns` to compare."""
    number = span.number(key).label("number")
    hashed = func.hashtextextended(func.concat_ws(":", key, *columns), 0)
    rows = select(number, hashed.label("hashed")).where(key >= span.since, *where).subquery()
    found = session.execute(
        select(rows.c.number, func.count(), func.sum(rows.c.hashed)).group_by(rows.c.number).order_by(rows.c.number)
    )
    return [[number, count, str(total)] for number, count, total in found]


def check(session: Session, name: str, broken: str, **values: Any) -> CheckResult:
    """Return a check: its name, the number of ids that the query `broken` returns, and the newest of them."""
    statement = text(
        f"WITH broken (id) AS MATERIALIZED ({broken}) SELECT count(*),"  # noqa: S608  (our own SQL)
        f" ARRAY(SELECT CAST(id AS text) FROM broken ORDER BY id DESC LIMIT {SHOWN_IDS}) FROM broken"
    )
    count, ids = session.execute(statement, values).one()
    return {"name": name, "count": count, "ids": ids}


def ranges_to_wire(ranges: Sequence[Range]) -> list[list[str | None]]:
    """Return what travels by RPC."""
    return [[str(low), None if high is None else str(high)] for low, high in ranges]


def parse_ranges(ranges: Sequence[Sequence[str | None]]) -> list[Range]:
    """Parse the ranges of an RPC call. Raises ValidationFailed."""
    return [(parse_id("low", low), None if high is None else parse_id("high", high)) for low, high in ranges]


def differing(ours: Mapping[str, Fingerprints], theirs: Mapping[str, Fingerprints]) -> set[int]:
    """Return the numbers of the ranges in which `theirs` differ from `ours`."""
    numbers: set[int] = set()
    for name, fingerprint in theirs.items():
        different = {tuple(one) for one in fingerprint} ^ {tuple(one) for one in ours[name]}
        numbers.update(number for number, _, _ in different)
    return numbers
