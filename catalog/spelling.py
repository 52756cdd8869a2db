"""Which words someone may have meant who mistyped one: pure functions."""

from collections.abc import Iterable

LETTERS = "abcdefghijklmnopqrstuvwxyz"
MOST_EDITED_LETTERS = 8
"""Words of up to so many letters may share few trigrams with their misspellings, so all their edits are looked up."""
ONE_EDIT_LETTERS = 5
MOST_MEANT = 10


def allowed_edits(word: str) -> int:
    """Return how many edits away a meant word may be: none for very short words and for words with digits."""
    if len(word) < 3 or any(letter.isdigit() for letter in word):
        return 0
    return 1 if len(word) <= ONE_EDIT_LETTERS else 2


def single_edits(word: str) -> set[str]:
    """Return all words that are one edit away: a letter too many, missing or wrong, or two letters swapped."""
    parts = [(word[:cut], word[cut:]) for cut in range(len(word) + 1)]
    edits = {left + right[1:] for left, right in parts if right}
    edits |= {left + right[1] + right[0] + right[2:] for left, right in parts if len(right) > 1}
    edits |= {left + letter + right[1:] for left, right in parts if right for letter in LETTERS}
    edits |= {left + letter + right for left, right in parts for letter in LETTERS}
    return edits - {word, ""}


def closest(word: str, known: Iterable[str]) -> list[str]:
    """Return the words of `known` that are so few edits away from `word` as allowed, the closest first.

    If there are none, return those that begin with a misspelling of `word`: people search while they still type.
    """
    limit = allowed_edits(word)
    if not limit:
        return []
    candidates = sorted(set(known) - {word})
    by_distance = [(distance(word, one), one) for one in candidates]
    found = sorted(pair for pair in by_distance if pair[0] <= limit)
    if not found:
        found = sorted(pair for one in candidates if (pair := (_distance_of_start(word, one), one))[0] <= limit)
    return [one for _, one in found[:MOST_MEANT]]


def _distance_of_start(word: str, other: str) -> int:
    return min(distance(word, other[: len(word) + more]) for more in (-1, 0, 1))


def distance(one: str, other: str) -> int:
    """Return the number of edits between two words (optimal string alignment); swapped neighbours are one edit."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for row, letter in enumerate(one, 1):
        current = [row]
        for column, compared in enumerate(other, 1):
            cost = min(last[column] + 1, current[-1] + 1, last[column - 1] + (letter != compared))
            is_swap = row > 1 and column > 1 and letter == other[column - 2] and one[row - 2] == compared
            current.append(min(cost, before[column - 2] + 1) if is_swap else cost)
        before, last = last, current
    return last[-1]
