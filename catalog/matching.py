"""Which products match a search, and how well: the SQL conditions and scores of each way of matching.

What matches, the first of these that finds anything with the given filters:

* words: every word of the search begins a word of the name, the sku or the description;
* text: the search, as a whole, is a part of one of these texts;
* meant words: as words, with misspelt words replaced by similar ones that products have.

The table of the words of all products says first which of them can find anything, and which words a part of a word or a
misspelt word stands for. It is small, and grows much slower than the products do. So the search reads no index on the
texts themselves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Integer, Text, and_, case, cast, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY, TSQUERY
from sqlalchemy.orm import Session

from catalog import spelling
from catalog.models import Product, ProductWord

MOST_WORDS = 8
MOST_REPLACED, MOST_SIMILAR = 3, 30
# Shorter parts are in too many words, and longer texts are no part of a word.
SHORTEST_PART, LONGEST_PART = 3, 64
# A part of a word stands for so many words that contain it, the shortest ones.
MOST_WITH_PART = 100
NAME_START_LETTERS = 64  # as many as in the index
NAME_START: ColumnElement[str] = func.left(Product.search_text, NAME_START_LETTERS)


class How(StrEnum):
    """How products match; the first letter of a cursor."""

    WORDS = "w"
    TEXT = "t"
    MEANT = "m"


@dataclass(frozen=True, slots=True)
class Typed:
    """What was typed: folded, its words, and for each of them the first word of a product that is not before it."""

    text: str
    words: tuple[str, ...]
    following: Mapping[str, str | None]

    def is_word(self, word: str) -> bool:
        """Whether it is a word of a product."""
        return self.following[word] == word

    def is_start(self, word: str) -> bool:
        """Whether it begins a word of a product."""
        return (self.following[word] or "").startswith(word)


@dataclass(frozen=True, slots=True)
class Word:
    """A word that must match: its alternatives, and whether they may begin longer words."""

    alternatives: tuple[str, ...]
    starts: bool

    def query(self, weight: str = "", *, whole: bool = False) -> str:
        """Return the text of a tsquery; with `whole` no alternative begins a longer word."""
        mark = f"{'*' if self.starts and not whole else ''}{weight}"
        return " | ".join(f"'{word}':{mark}".removesuffix(":") for word in self.alternatives)


@dataclass(frozen=True, slots=True)
class Search:
    """What to search for. The products are those of `Product`, an alias of it, or the columns of a subquery."""

    text: str
    words: tuple[Word, ...]
    how: How

    def matches(self, product: Any) -> ColumnElement[bool]:
        """Return the SQL condition of a match."""
        words: Any = product.search_vector.bool_op("@@")(_query(" & ".join(f"({word.query()})" for word in self.words)))
        # PostgreSQL evaluates them in this order, and the first is faster for a row that was not found by an index.
        return and_(product.search_text.like(f"%{escaped(self.text)}%", escape="\\"), words) if self._is_text else words

    @property
    def begins_name(self) -> ColumnElement[bool]:
        """The SQL condition that the name begins with the search."""
        return NAME_START.like(escaped(self.text) + "%", escape="\\")

    def score(self, product: Any) -> ColumnElement[int]:
        """Return the score, from the row alone: the sku, the beginning of the name, then each word and where it is."""
        is_sku = func.lower(product.sku) == self.text
        is_name = product.search_text.like(escaped(self.text) + "\n%", escape="\\")
        begins_name = product.search_text.like(escaped(self.text) + "%", escape="\\")
        score: Any = case((is_sku, 40_000), (is_name, 30_000), (begins_name, 20_000), else_=0)
        score += 50 - func.least(func.length(product.name), 50)
        if not self._is_text:
            for word in self.words:
                score += 100 * _score_of_word(product.search_vector, word)
        return cast(score, Integer)

    @property
    def _is_text(self) -> bool:
        return self.how is How.TEXT


def _score_of_word(vector: Any, word: Word) -> ColumnElement[int]:
    """A whole word counts more than the beginning of one, and the name more than sku and description."""
    places = [("A", True), ("A", False), ("B", True), ("B", False), ("", True)]
    found = [
        (vector.bool_op("@@")(_query(word.query(weight, whole=whole))), points)
        for (weight, whole), points in zip(places, (9, 7, 6, 5, 3), strict=True)
    ]
    return case(*found, else_=1)


def search_for(session: Session, how: How, typed: Typed) -> Search | None:
    """Return the search for one way of matching; None if no product can match like this."""
    if not typed.words:
        return None
    if how is How.TEXT:
        return _part_of_text(session, typed)
    kept = _essential(typed.words)
    # A single letter that is not the last word is found as a word only: it begins a large share of all words.
    words = [Word((word,), starts=len(word) > 1 or word == kept[-1]) for word in kept]
    if how is How.MEANT:
        return _meant(session, typed, words)
    if not all((typed.is_start if word.starts else typed.is_word)(word.alternatives[0]) for word in words):
        return None
    return Search(typed.text, tuple(words), how)


def _essential(words: Sequence[str]) -> list[str]:
    """Return the distinct words, without those that begin another one, at most MOST_WORDS, the longest ones."""
    distinct = list(dict.fromkeys(words))
    needed = [word for word in distinct if not any(other != word and other.startswith(word) for other in distinct)]
    longest = sorted(needed, key=len, reverse=True)[:MOST_WORDS]
    return [word for word in needed if word in longest]


def _part_of_text(session: Session, typed: Typed) -> Search | None:
    """The first word ends a word of the text, the last one begins one, and a single one is a part of a word."""
    first, *others = typed.words
    if len(typed.text) > LONGEST_PART or all(len(word) < SHORTEST_PART for word in typed.words):
        return None
    if others and not (all(map(typed.is_word, others[:-1])) and typed.is_start(others[-1])):
        return None
    words = [Word((word,), starts=False) for word in others[:-1]] + [Word((word,), starts=True) for word in others[-1:]]
    if len(first) >= SHORTEST_PART:
        pattern = f"%{escaped(first)}" if others else f"%{escaped(first)}%"
        found = session.scalars(select(func.words_like(pattern, MOST_WITH_PART))).all()
        if not found:
            return None
        words.insert(0, Word(tuple(found), starts=False))
    return Search(typed.text, tuple(words), How.TEXT)


def _meant(session: Session, typed: Typed, words: Sequence[Word]) -> Search | None:
    """Replace the words that begin no word of a product by similar words; None if there are no such words."""
    replaced = [word for (word,) in (word.alternatives for word in words) if not typed.is_start(word)]
    if not replaced or len(replaced) > MOST_REPLACED:
        return None
    meant = {word: _similar(session, word) for word in replaced if spelling.allowed_edits(word)}
    if len(meant) < len(replaced) or not all(meant.values()):
        return None
    found = [Word(tuple(meant.get(word.alternatives[0], word.alternatives)), word.starts) for word in words]
    return Search(typed.text, tuple(found), How.MEANT)


def _similar(session: Session, word: str) -> list[str]:
    found = set(session.scalars(select(func.similar_words(word, MOST_SIMILAR))))
    if len(word) <= spelling.MOST_EDITED_LETTERS:
        edits = cast(sorted(spelling.single_edits(word)), ARRAY(Text))
        found |= set(session.scalars(select(ProductWord.word).where(ProductWord.word == func.any(edits))))
    return spelling.closest(word, found)


def _query(words: str) -> ColumnElement[Any]:
    return cast(literal(words, Text), TSQUERY)


def escaped(folded: str) -> str:
    """Return the text for a LIKE, in which % and _ are no wildcards."""
    for special in ("\\", "%", "_"):
        folded = folded.replace(special, f"\\{special}")
    return folded
