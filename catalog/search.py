"""The search of products: which of them match what was typed, and in which order, within a bounded time.

What matches, the first of these that finds anything with the given filters:

* words: every word of the search begins a word of the name, the sku or the description;
* text: the search, as a whole, is a part of one of these texts;
* meant words: as words, with misspelt words replaced by similar ones that products have.

The order is by score if at most MOST_SCORED products match. More are not scored: products whose name begins with the
search come first, in the order of their names, then the others, the newest first. A cursor names the way of matching
and the part of the order, so that later pages continue in the same one, whatever is added meanwhile.

Every statement reads at most MOST_SORTED matching rows, or walks along the index of its order, on which a match is then
frequent. Which one it is, a sample of the table tells: to count the matches of a frequent word takes too long.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    Text,
    case,
    cast,
    func,
    literal,
    not_,
    select,
    tablesample,
    text,
    tuple_,
)
from sqlalchemy.dialects.postgresql import ARRAY, TSQUERY
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.sql.util import ClauseAdapter

from catalog import spelling
from catalog.models import Product, ProductWord
from extensions.storage.pagination import decode_position, encode_position, invalid_cursor, mark_of

MOST_WORDS = 8
MOST_SCORED, MOST_SORTED = 1_000, 3_000
NAME_START_LETTERS = 64
MOST_REPLACED, MOST_SIMILAR = 3, 30
# No trigram index finds shorter ones, and it reads a list for each letter of longer ones.
SHORTEST_PART, LONGEST_PART = 3, 64
# The rows of a sample of the table. If it says that more than MANY products match, they are not counted.
SAMPLED, MANY = 500, 2_000

# For this transaction. The estimates of matches are too inaccurate to let PostgreSQL choose to read the whole table.
PREPARE = text(
    "SELECT set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true),"
    " fold_words(:text), fold_text(:text)"
)
TABLE_ROWS = text("SELECT reltuples FROM pg_class WHERE oid = 'products'::regclass")
WALK = text("SELECT set_config('enable_bitmapscan', 'off', true)")

Keys = tuple[InstrumentedAttribute[Any], ...]
Found = tuple[Sequence[Product], str | None]
"""The products of a page, and the cursor of the next one."""
NEWEST: Keys = (Product.created_at, Product.id)
_NAME_START: ColumnElement[str] = func.left(Product.search_text, NAME_START_LETTERS)


class How(StrEnum):
    """How products match; the first letter of a cursor."""

    WORDS = "w"
    TEXT = "t"
    MEANT = "m"


class Part(StrEnum):
    """A part of the order; the second letter of a cursor."""

    SORTED = "s"
    SCORED = "r"
    NAME = "n"
    REST = "l"


@dataclass(frozen=True, slots=True)
class Search:
    """What was typed, folded. Each item of `groups` is a word that must match, as its alternatives."""

    text: str
    groups: tuple[tuple[str, ...], ...]
    how: How

    @property
    def condition(self) -> ColumnElement[bool]:
        """The SQL condition of a match."""
        if self.how is How.TEXT:
            return Product.search_text.like("%" + _escaped(self.text) + "%", escape="\\")
        return Product.search_vector.bool_op("@@")(
            _query(" & ".join(f"({_any_of(self.groups, n)})" for n in self._each))
        )

    @property
    def begins_name(self) -> ColumnElement[bool]:
        """The SQL condition that the name begins with the search."""
        return _NAME_START.like(_escaped(self.text) + "%", escape="\\")

    @property
    def score(self) -> ColumnElement[int]:
        """The score, from the row alone: the sku, the beginning of the name, then each word and where it is."""
        is_sku = func.lower(Product.sku) == self.text
        is_name = Product.search_text.like(_escaped(self.text) + "\n%", escape="\\")
        score: Any = case((is_sku, 40_000), (is_name, 30_000), (self.begins_name, 20_000), else_=0)
        score += 50 - func.least(func.length(Product.name), 50)
        if self.how is not How.TEXT:
            for number in self._each:
                score += 100 * self._score_of_word(number)
        return cast(score, Integer)

    @property
    def _each(self) -> range:
        return range(len(self.groups))

    def _score_of_word(self, number: int) -> ColumnElement[int]:
        """A whole word counts more than the beginning of one, and the name more than sku and description."""
        places = [("A", False), ("A", True), ("B", False), ("B", True), ("", False)]
        found = [
            (Product.search_vector.bool_op("@@")(_query(_any_of(self.groups, number, weight, starts=starts))), points)
            for (weight, starts), points in zip(places, (9, 7, 6, 5, 3), strict=True)
        ]
        return case(*found, else_=1)


def find_page(
    session: Session,
    filtered: Select[Product],
    typed: str,
    keys: Keys | None,
    *,
    descending: bool,
    limit: int,
    cursor: str | None,
) -> tuple[Sequence[Product], str | None]:
    """Return a page of the products of `filtered` that match `typed`, and the cursor of the next one.

    `keys` are the columns to sort by, None for the best match first. Raises ValidationFailed for a cursor that does not
    belong to this list.
    """
    *_, words, whole = session.execute(PREPARE, {"text": typed}).one()
    page = _Page(session, filtered, keys, limit=limit, descending=descending)
    if cursor is not None:
        how, part, position = _parse(cursor)
        search = _search(session, how, whole, words)
        return page.find(search, part, position) if search else ((), None)
    for how in How:
        search = _search(session, how, whole, words)
        found = page.find(search, None, "") if search else ((), None)
        if found[0]:
            return found
    return (), None


def _search(session: Session, how: How, whole: str, words: str) -> Search | None:
    """Return the search for one way of matching; None if it cannot match anything."""
    kept = _essential(words.split())
    if not kept:
        return None
    if how is How.TEXT:
        is_findable = len(whole) <= LONGEST_PART and any(len(word) >= SHORTEST_PART for word in kept)
        return Search(whole, (), how) if is_findable else None
    if how is How.WORDS:
        return Search(whole, tuple((word,) for word in kept), how)
    return _meant(session, whole, kept)


def _essential(words: Sequence[str]) -> list[str]:
    """Return the distinct words, without those that begin another one, at most MOST_WORDS, the longest ones."""
    distinct = list(dict.fromkeys(words))
    needed = [word for word in distinct if not any(other != word and other.startswith(word) for other in distinct)]
    longest = sorted(needed, key=len, reverse=True)[:MOST_WORDS]
    return [word for word in needed if word in longest]


def _meant(session: Session, whole: str, words: Sequence[str]) -> Search | None:
    """Replace the words that begin no word of a product by similar words; None if there are no such words."""
    is_known = {
        word: session.scalar(select(ProductWord.word).where(ProductWord.word.like(_escaped(word) + "%")).limit(1))
        is not None
        for word in words
    }
    replaced = [word for word in words if not is_known[word]]
    if len(replaced) > MOST_REPLACED:
        return None
    groups = []
    for word in words:
        meant = _similar(session, word) if word in replaced and spelling.allowed_edits(word) else []
        groups.append((word, *meant))
    if all(len(group) == 1 for group in groups):
        return None
    return Search(whole, tuple(groups), How.MEANT)


def _similar(session: Session, word: str) -> list[str]:
    found = set(session.scalars(select(func.similar_words(word, MOST_SIMILAR))))
    if len(word) <= spelling.MOST_EDITED_LETTERS:
        edits = cast(sorted(spelling.single_edits(word)), ARRAY(Text))
        found |= set(session.scalars(select(ProductWord.word).where(ProductWord.word == func.any(edits))))
    return spelling.closest(word, found)


class _Page:
    """One page of a search, and its statements. `keys` are None for the best match first."""

    def __init__(
        self, session: Session, filtered: Select[Product], keys: Keys | None, *, limit: int, descending: bool
    ) -> None:
        self._session, self._filtered, self._limit = session, filtered, limit
        self._keys, self._descending = keys, descending
        self._are_many = False

    def find(self, search: Search, part: Part | None, position: str) -> Found:
        """Return the page that begins after `position`; the first one, of the part that fits, if `part` is None."""
        if part is not None and (part is Part.SORTED) != (self._keys is not None):
            raise invalid_cursor()
        self._are_many = self._seem_many(search)
        if self._keys is not None:
            return self._find_sorted(search, self._keys, position)
        found = self._find_scored(search, position) if part in {None, Part.SCORED} else None
        return self._find_unscored(search, part or Part.NAME, position) if found is None else found

    def _find_scored(self, search: Search, position: str) -> Found | None:
        """Return a page of the best matches first; None if these are too many, and the page is the first one."""
        if self._are_many and not position:
            return None
        most = MOST_SORTED if position else MOST_SCORED + 1  # there may be more of them meanwhile
        matching = self._filtered.where(search.condition)
        score = search.score.label("score")
        few = matching.with_only_columns(Product.id, Product.created_at, score).limit(most).cte("few")
        order = (few.c.score, few.c.created_at, few.c.id)
        count = select(func.count()).select_from(few).scalar_subquery().label("found")
        page = select(few.c.id, few.c.score, count)
        if position:
            page = page.where(tuple_(*order) < tuple_(*decode_position(position, (int, *_types(NEWEST)))))
        chosen = page.order_by(*(key.desc() for key in order)).limit(self._limit + 1).subquery()
        rows = self._session.execute(
            select(Product, chosen.c.score, chosen.c.found)
            .join(chosen, Product.id == chosen.c.id)
            .order_by(chosen.c.score.desc(), Product.created_at.desc(), Product.id.desc())
        ).all()
        if rows and rows[0].found > MOST_SCORED and not position:
            return None
        products = [row.Product for row in rows[: self._limit]]
        if len(rows) <= self._limit:
            return products, None
        last = products[-1]
        return products, _cursor(search, Part.SCORED, [rows[self._limit - 1].score, last.created_at, last.id])

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
            others = self._filtered.where(not_(search.begins_name)) if has_start else self._filtered
            products += self._sorted(others, search, NEWEST, position, descending=True)
        if len(products) <= self._limit:
            return products, None
        last = products[self._limit - 1]
        if names >= self._limit:
            start = self._session.scalar(select(_NAME_START).where(Product.id == last.id))
            return products[: self._limit], _cursor(search, Part.NAME, [start, last.id])
        return products[: self._limit], _cursor(search, Part.REST, [last.created_at, last.id])

    def _names(self, search: Search, position: str) -> list[Product]:
        matching = self._filtered.where(search.begins_name, search.condition)
        if position:
            after = tuple_(*decode_position(position, (str, UUID)))
            matching = matching.where(tuple_(_NAME_START, Product.id) > after)
        return list(self._session.scalars(matching.order_by(_NAME_START, Product.id).limit(self._limit + 1)))

    def _find_sorted(self, search: Search, keys: Keys, position: str) -> Found:
        mark = mark_of(keys, self._descending)
        if position and not position.startswith(mark):
            raise invalid_cursor()
        rows = self._sorted(self._filtered, search, keys, position.removeprefix(mark), descending=self._descending)
        if len(rows) <= self._limit:
            return rows, None
        shown = rows[: self._limit]
        return shown, _cursor(search, Part.SORTED, [getattr(shown[-1], key.key) for key in keys], mark)

    def _sorted(
        self, filtered: Select[Product], search: Search, keys: Keys, position: str, *, descending: bool
    ) -> list[Product]:
        """Return the rows of a page and one more: by sorting all matches, or if they are many, along the index."""
        matching = filtered.where(search.condition)
        if self._are_many:
            return self._walk(matching, keys, position, descending=descending)
        few = matching.with_only_columns(*keys).limit(MOST_SORTED + 1).cte("few")
        count = select(func.count()).select_from(few).scalar_subquery().label("found")
        columns = [few.c[key.key] for key in keys]
        chosen = self._ordered(select(few.c.id, count), columns, keys, position, descending=descending).subquery()
        rows = self._session.execute(
            select(Product, chosen.c.found)
            .join(chosen, Product.id == chosen.c.id)
            .order_by(*_direction(keys, descending=descending))
        ).all()
        found = rows[0].found if rows else 0
        if not rows and position:  # the rows after the position may be missing among those that were read
            found = self._session.scalar(select(count)) or 0
        if found <= MOST_SORTED:
            return [row.Product for row in rows]
        return self._walk(matching, keys, position, descending=descending)

    def _walk(self, matching: Select[Product], keys: Keys, position: str, *, descending: bool) -> list[Product]:
        """Return the rows of a page and one more, along the index of their order."""
        self._session.execute(WALK)
        return list(self._session.scalars(self._ordered(matching, keys, keys, position, descending=descending)))

    def _seem_many(self, search: Search) -> bool:
        """Tell whether many products match, by a sample; False in a small table."""
        rows = self._session.scalar(TABLE_ROWS) or 0
        if rows <= MANY:
            return False
        sample = tablesample(Product.__table__, func.system(min(100, 100 * SAMPLED / rows)), name="sample")
        matches: Any = ClauseAdapter(sample).traverse(self._filtered.where(search.condition).whereclause)
        counts = select(func.count(), func.count().filter(matches)).select_from(sample)
        sampled, found = self._session.execute(counts).one()
        return bool(found * rows > MANY * max(sampled, SAMPLED // 5))

    def _ordered(
        self, statement: Select[Any], columns: Sequence[Any], keys: Keys, position: str, *, descending: bool
    ) -> Select[Any]:
        if position:
            after = tuple_(*decode_position(position, _types(keys)))
            statement = statement.where(tuple_(*columns) < after if descending else tuple_(*columns) > after)
        return statement.order_by(*_direction(columns, descending=descending)).limit(self._limit + 1)


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


def _any_of(groups: Sequence[Sequence[str]], number: int, weight: str = "", *, starts: bool = True) -> str:
    """Return the text of a tsquery for one group; with `starts`, its words may begin longer ones.

    A single letter that is not the last word is found as a word only: it begins a large share of all words.
    """
    is_last = number == len(groups) - 1
    return " | ".join(
        f"'{word}':{'*' if starts and (is_last or len(word) > 1) else ''}{weight}".removesuffix(":")
        for word in groups[number]
    )


def _query(words: str) -> ColumnElement[Any]:
    return cast(literal(words, Text), TSQUERY)


def _escaped(folded: str) -> str:
    """Return the text for a LIKE, in which % and _ are no wildcards."""
    for special in ("\\", "%", "_"):
        folded = folded.replace(special, f"\\{special}")
    return folded
