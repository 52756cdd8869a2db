"""How services compare what they hold about the same orders, without carrying it from one to the other.

Ids are cut into ranges of a hundred orders or more. Of each range both sides say how much they hold and what its hashes
add up to; only where they differ do they look at the rows. So millions of orders cost a few aggregates.
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
from extensions.storage.response_timeout import response_timeout

SHOWN = 20
# PostgreSQL gives a statement up by itself, and then says so.
MARGIN_SECONDS = 1.0
QUERY_CANCELED = "57014"
MAX_ROWS = 20_000
"""More rows than this in one range are not compared one by one."""

Range = tuple[UUID, UUID | None]
"""The first id of a range, and the first one after it (None: it is the last)."""

Fingerprints = list[list[Any]]
"""[range, number of rows, sum of their hashes] each; ranges with no rows are left out."""


@dataclass(frozen=True, slots=True)
class Span:
    """Ranges of ids: the first begins at `since`, the next ones at the `bounds`, which are sorted; the last is open."""

    since: UUID
    bounds: tuple[UUID, ...]

    @classmethod
    def of(cls, since: str, bounds: Sequence[str]) -> "Span":
        """Read what came by RPC; raises ValidationFailed."""
        return cls(parse_id("since", since), tuple(parse_id("bounds", bound) for bound in bounds))

    def to_wire(self) -> dict[str, Any]:
        """Return what travels by RPC."""
        return {"since": str(self.since), "bounds": [str(bound) for bound in self.bounds]}

    def range(self, number: int) -> Range:
        """Return the range with this number."""
        low = self.bounds[number - 1] if number else self.since
        return low, self.bounds[number] if number < len(self.bounds) else None

    def number(self, key: Any) -> ColumnElement[int]:
        """Return the SQL for the number of the range that `key` is in."""
        bounds = cast(bindparam("bounds", list(self.bounds), unique=True), ARRAY(Uuid))
        return func.width_bucket(key, bounds)


def within(key: Any, ranges: Sequence[Range]) -> ColumnElement[bool]:
    """Return the SQL for `key` being in one of some ranges."""
    return or_(false(), *(key >= low if high is None else and_(key >= low, key < high) for low, high in ranges))


def seconds_since(time: Any) -> ColumnElement[int]:
    """Return the SQL for how long ago that was, by the database's clock; negative where it was set back since."""
    return cast(func.extract("epoch", func.clock_timestamp() - time), Integer)


@contextmanager
def read_snapshot(work: Any, seconds: float) -> Iterator[Session]:
    """Open a transaction that only reads, and whose statements all see the same moment; each has `seconds` at most."""
    with _in_time(), response_timeout(seconds + MARGIN_SECONDS), work.transaction() as session:
        session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
        session.execute(select(func.set_config("statement_timeout", str(max(1, int(seconds * 1000))), True)))
        yield session


@contextmanager
def _in_time() -> Iterator[None]:
    """Turn a statement that took too long into UpstreamTimeout."""
    try:
        yield
    except DBAPIError as error:
        if getattr(error.orig, "pgcode", None) != QUERY_CANCELED:
            raise
        detail = "There are too many orders to compare them all in time: ask for those since a later time."
        raise UpstreamTimeout(detail) from error


def unsent(work: Any) -> dict[str, Any]:
    """Return how many events wait in the outbox, and the message ids of the oldest."""
    outbox = work.table("outbox")
    oldest = work.session.scalars(select(outbox.c.message_id).order_by(outbox.c.id).limit(SHOWN))
    count = work.session.scalar(select(func.count()).select_from(outbox))
    return {"count": count, "ids": [str(message_id) for message_id in oldest]}


def fingerprints(session: Session, span: Span, key: Any, said: Sequence[Any], *where: Any) -> Fingerprints:
    """Return the fingerprints of rows about the thing `key`, of which `said` are the columns to agree on."""
    number = span.number(key).label("number")
    hashed = func.hashtextextended(func.concat_ws(":", key, *said), 0)
    rows = select(number, hashed.label("hashed")).where(key >= span.since, *where).subquery()
    found = session.execute(
        select(rows.c.number, func.count(), func.sum(rows.c.hashed)).group_by(rows.c.number).order_by(rows.c.number)
    )
    return [[number, count, str(total)] for number, count, total in found]


def check(session: Session, name: str, broken: str, **values: Any) -> dict[str, Any]:
    """Return how many ids the query `broken` finds, and the first of them."""
    statement = text(
        f"WITH broken (id) AS MATERIALIZED ({broken}) SELECT count(*),"  # noqa: S608  (our own SQL)
        f" ARRAY(SELECT CAST(id AS text) FROM broken ORDER BY id DESC LIMIT {SHOWN}) FROM broken"
    )
    count, ids = session.execute(statement, values).one()
    return {"name": name, "count": count, "ids": ids}


def parse_ranges(ranges: Sequence[Sequence[str | None]]) -> list[Range]:
    """Read what came by RPC; raises ValidationFailed."""
    return [(parse_id("low", low), None if high is None else parse_id("high", high)) for low, high in ranges]


def differing(ours: Mapping[str, Fingerprints], theirs: Mapping[str, Fingerprints]) -> set[int]:
    """Return the numbers of the ranges in which `theirs` are not the same as `ours`."""
    numbers: set[int] = set()
    for name, fingerprint in theirs.items():
        different = {tuple(one) for one in fingerprint} ^ {tuple(one) for one in ours[name]}
        numbers.update(number for number, _, _ in different)
    return numbers
