"""The search of products: the pages of those that match what was typed, in a stated order, within a bounded time.

What matches, catalog/matching.py says.

The order is by score if at most MOST_SCORED products match. More are not scored: products whose name begins with the
search come first, in the order of their names, then the others, the newest first. A cursor names the way of matching
and the part of the order, so that later pages continue in the same one, whatever is added meanwhile.

Every statement reads at most MOST_SORTED matching rows, or walks along the index of its order, on which a match is then
frequent. Which one it is, a sample of the table tells: to count the matches of a frequent word takes too long. The same
blocks are read each time, so the same search gets the same order.
"""

from collections.abc import Callable, Sequence
from enum import Enum, StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CTE,
    ColumnElement,
    Select,
    Subquery,
    and_,
    func,
    literal,
    not_,
    select,
    tablesample,
    text,
    true,
    tuple_,
)
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from catalog.matching import NAME_START, NAME_START_LETTERS, How, Search, Typed, search_for
from catalog.models import Product
from extensions.storage.pagination import decode_position, encode_position, invalid_cursor, mark_of

MOST_SCORED, MOST_SORTED = 1_000, 3_000
# The blocks of a sample of the table, some hundred rows. If they say that more than MANY products match, these are not
# counted.
SAMPLED_BLOCKS, MANY = 50, 2_000
# If more rows than this would be read, because neither the words nor the filters alone are found in few products, the
# page is read in its order, if that takes fewer rows. An order without scores reads them twice, for each of its parts.
MOST_READ = 6_000

# The settings are for this transaction. The estimates of matches are too inaccurate to let PostgreSQL choose to read a
# whole table.
PREPARE = text("""
    WITH typed AS MATERIALIZED (SELECT fold_text(:text) AS whole, fold_words(:text) AS words)
    SELECT set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true),
        pg_relation_size('products') / CAST(current_setting('block_size') AS integer) AS blocks, whole,
        string_to_array(words, ' ') AS words,
        ARRAY(
            SELECT (
                SELECT known.word FROM product_words AS known
                WHERE known.word >= one.word COLLATE "C" ORDER BY known.word LIMIT 1
            )
            FROM unnest(string_to_array(words, ' ')) WITH ORDINALITY AS one (word, place) ORDER BY place
        ) AS following
    FROM typed
""")
WALK = text("SELECT set_config('enable_bitmapscan', 'off', true)")

Filters = Callable[[Any], Sequence[ColumnElement[bool]]]
"""Returns the SQL conditions of all filters except the search, for `Product` or an alias of it."""
Keys = tuple[InstrumentedAttribute[Any], ...]
Found = tuple[Sequence[Product], str | None]
"""The products of a page, and the cursor of the next one."""
NEWEST: Keys = (Product.created_at, Product.id)
_SCORED = (Product.id, Product.created_at, Product.name, Product.sku, Product.search_text, Product.search_vector)


class Index(Enum):
    """Which index finds the matches if they are few."""

    ANY = "any"
    WORDS = "words"
    FILTERS = "filters"


class Part(StrEnum):
    """A part of the order; the second letter of a cursor."""

    SORTED = "s"
    SCORED = "r"
    NAME = "n"
    REST = "l"


def find_page(
    session: Session,
    filters: Filters,
    typed: str,
    keys: Keys | None,
    *,
    descending: bool,
    limit: int,
    cursor: str | None,
) -> Found:
    """Return a page of the products that pass `filters` and match `typed`, and the cursor of the next one.

    `keys` are the columns to sort by, None for the best match first. Raises ValidationFailed for a cursor that does not
    belong to this list.
    """
    given = _parse(cursor) if cursor is not None else None
    what, blocks = read(session, typed)
    page = Page(session, filters, keys, limit=limit, descending=descending, blocks=blocks)
    if given is not None:
        how, part, position = given
        search = search_for(session, how, what)
        return page.find(search, part, position) if search else ((), None)
    for how in How:
        search = search_for(session, how, what)
        found = page.find(search, None, "") if search else ((), None)
        if found[0]:
            return found
    return (), None


def read(session: Session, typed: str) -> tuple[Typed, int]:
    """Prepare the transaction for a search. Returns what was typed, and how many blocks the table of products has."""
    row = session.execute(PREPARE, {"text": typed}).one()
    following = dict(zip(row.words, row.following, strict=True))
    return Typed(row.whole, tuple(row.words), following), row.blocks


class Page:
    """One page of a search, and its statements. `keys` are None for the best match first."""

    def __init__(
        self, session: Session, filters: Filters, keys: Keys | None, *, limit: int, descending: bool, blocks: int
    ) -> None:
        self._session, self._filters, self._limit = session, filters, limit
        self._keys, self._descending, self._blocks = keys, descending, blocks
        self._are_many = False
        self._index = Index.ANY
        # Estimates of a sample: the products, and those that the index for few matches finds. None of a small table.
        self._rows = self._fewest = 0.0

    def find(self, search: Search, part: Part | None, position: str) -> Found:
        """Return the page that begins after `position`; the first one, of the part that fits, if `part` is None."""
        if part is not None and (part is Part.SORTED) != (self._keys is not None):
            raise invalid_cursor()
        self._are_many = part is not Part.SCORED and self.seem_many(search)
        if self._keys is not None:
            return self._find_sorted(search, self._keys, position)
        found = self._find_scored(search, position) if part in {None, Part.SCORED} else None
        if found is not None:
            return found
        if part is None:  # there are more than MOST_SCORED, whatever the sample says
            self._are_many = self._are_many or self._is_order_faster(MOST_SCORED)
        return self._find_unscored(search, part or Part.NAME, position)

    def seem_many(self, search: Search) -> bool:
        """Tell by a sample whether many products match, or can be read faster in their order; False in a small table.

        It also chooses the index for few matches: that of the words, or, if many products have these, that of a filter.
        PostgreSQL cannot choose well, because it estimates all beginnings of words to be equally frequent.
        """
        if self._blocks <= SAMPLED_BLOCKS:
            return False
        share = SAMPLED_BLOCKS / self._blocks
        blocks = tablesample(Product.__table__, func.system(100 * share), name="sample", seed=literal(0))
        sample = aliased(Product, blocks)
        filters, matches = and_(true(), *self._filters(sample)), search.matches(sample)
        conditions = (true(), filters, matches, and_(filters, matches))
        counts = select(*(func.count().filter(condition) for condition in conditions)).select_from(sample)
        rows, filtered, matching, found = (count / share for count in self._session.execute(counts).one())
        self._index = Index.WORDS if matching <= filtered else Index.FILTERS
        self._rows, self._fewest = rows, min(filtered, matching)
        read = self._fewest if self._keys is not None or found <= MOST_SCORED else 2 * self._fewest
        return bool(found > MANY or (read > MOST_READ and self._is_order_faster(found)))

    def _is_order_faster(self, found: float) -> bool:
        """Tell whether a page of so many products takes fewer rows in its order than by the index for few matches."""
        return found * self._fewest > self._limit * self._rows

    def _matching(self, search: Search) -> Select[Product]:
        """Return the products that match and pass the filters, without those indexes that are not to be used."""
        filters, matches = list(self._filters(Product)), search.matches(Product)
        if not self._are_many and self._index is Index.WORDS:
            filters = [condition.is_(True) for condition in filters]
        elif not self._are_many and self._index is Index.FILTERS:
            matches = matches.is_(True)
        return select(Product).where(*filters, matches)

    def _find_scored(self, search: Search, position: str) -> Found | None:
        """Return a page of the best matches first; None if these are too many, and the page is the first one."""
        if self._are_many and not position:
            return None
        most = MOST_SORTED if position else MOST_SCORED  # there may be more of them meanwhile
        few = self._matching(search).with_only_columns(*_SCORED).limit(most + 1).cte("few")
        counted = _count(few)
        score = search.score(few.c)
        ordered = (score, few.c.created_at, few.c.id)
        scored = select(few.c.id, score.label("score"))
        if position:
            scored = scored.where(tuple_(*ordered) < tuple_(*decode_position(position, (int, *_types(NEWEST)))))
        else:
            scored = scored.join(counted, counted.c.found <= most)
        chosen = scored.order_by(*(key.desc() for key in ordered)).limit(self._limit + 1).subquery("chosen")
        rows = self._session.execute(
            select(counted.c.found, Product, chosen.c.score)
            .select_from(counted)
            .outerjoin(chosen, true())
            .outerjoin(Product, Product.id == chosen.c.id)
            .order_by(chosen.c.score.desc(), Product.created_at.desc(), Product.id.desc())
        ).all()
        if rows[0].found > most and not position:
            return None
        products = [row.Product for row in rows if row.Product is not None]
        if len(products) <= self._limit:
            return products, None
        last = products[self._limit - 1]
        after = [rows[self._limit - 1].score, last.created_at, last.id]
        return products[: self._limit], _cursor(search, Part.SCORED, after)

    def _find_unscored(self, search: Search, part: Part, position: str) -> Found:
        """Return a page of many matches: names that begin with the search, then the rest."""
        if self._are_many:
            self._session.execute(WALK)
        has_start = len(search.text) <= NAME_START_LETTERS
        products: list[Product] = []
        if part is Part.NAME and has_start:
            products, position = self._names(search, position), ""
        names = len(products)
        if names <= self._limit:
            others = self._matching(search).where(not_(search.begins_name)) if has_start else self._matching(search)
            products += self._sorted(others, NEWEST, position, descending=True)
        if len(products) <= self._limit:
            return products, None
        last = products[self._limit - 1]
        if names >= self._limit:
            start = self._session.scalar(select(NAME_START).where(Product.id == last.id))
            return products[: self._limit], _cursor(search, Part.NAME, [start, last.id])
        return products[: self._limit], _cursor(search, Part.REST, [last.created_at, last.id])

    def _names(self, search: Search, position: str) -> list[Product]:
        matching = self._matching(search).where(search.begins_name)
        if position:
            after = tuple_(*decode_position(position, (str, UUID)))
            matching = matching.where(tuple_(NAME_START, Product.id) > after)
        return list(self._session.scalars(matching.order_by(NAME_START, Product.id).limit(self._limit + 1)))

    def _find_sorted(self, search: Search, keys: Keys, position: str) -> Found:
        mark = mark_of(keys, self._descending)
        if position and not position.startswith(mark):
            raise invalid_cursor()
        matching, after = self._matching(search), position.removeprefix(mark)
        rows = self._sorted(matching, keys, after, descending=self._descending)
        if len(rows) <= self._limit:
            return rows, None
        shown = rows[: self._limit]
        return shown, _cursor(search, Part.SORTED, [getattr(shown[-1], key.key) for key in keys], mark)

    def _sorted(self, matching: Select[Product], keys: Keys, position: str, *, descending: bool) -> list[Product]:
        """Return the rows of a page and one more: by sorting all matches, or if they are many, along the index."""
        if self._are_many:
            return self._walk(matching, keys, position, descending=descending)
        few = matching.with_only_columns(*keys).limit(MOST_SORTED + 1).cte("few")
        counted = _count(few)
        columns = [few.c[key.key] for key in keys]
        sorted_few = select(few.c.id).join(counted, counted.c.found <= MOST_SORTED)
        chosen = self._ordered(sorted_few, columns, keys, position, descending=descending).subquery("chosen")
        rows = self._session.execute(
            select(counted.c.found, Product)
            .select_from(counted)
            .outerjoin(chosen, true())
            .outerjoin(Product, Product.id == chosen.c.id)
            .order_by(*_direction(keys, descending=descending))
        ).all()
        if rows[0].found > MOST_SORTED:
            return self._walk(matching, keys, position, descending=descending)
        return [row.Product for row in rows if row.Product is not None]

    def _walk(self, matching: Select[Product], keys: Keys, position: str, *, descending: bool) -> list[Product]:
        """Return the rows of a page and one more, along the index of their order."""
        self._session.execute(WALK)
        return list(self._session.scalars(self._ordered(matching, keys, keys, position, descending=descending)))

    def _ordered(
        self, statement: Select[Any], columns: Sequence[Any], keys: Keys, position: str, *, descending: bool
    ) -> Select[Any]:
        if position:
            after = tuple_(*decode_position(position, _types(keys)))
            statement = statement.where(tuple_(*columns) < after if descending else tuple_(*columns) > after)
        return statement.order_by(*_direction(columns, descending=descending)).limit(self._limit + 1)


def _count(few: CTE) -> Subquery:
    return select(func.count().label("found")).select_from(few).subquery("counted")


def _direction(columns: Sequence[Any], *, descending: bool) -> list[Any]:
    return [column.desc() if descending else column.asc() for column in columns]


def _types(keys: Sequence[InstrumentedAttribute[Any]]) -> tuple[type, ...]:
    return tuple(key.type.python_type for key in keys)


def _cursor(search: Search, part: Part, values: Sequence[Any], mark: str = "") -> str:
    return f"{search.how}{part}.{mark}{encode_position(values)}"


def _parse(cursor: str) -> tuple[How, Part, str]:
    try:
        if cursor[2:3] != "." or len(cursor) == 3:
            raise ValueError(cursor)
        return How(cursor[0]), Part(cursor[1]), cursor[3:]
    except ValueError:
        raise invalid_cursor() from None
