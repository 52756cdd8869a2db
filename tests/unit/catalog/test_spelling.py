"""Which words are close enough to a misspelt one."""

import pytest

from catalog import spelling

WORDS = ["bardak", "bardaklik", "tabak", "cay", "cam", "kasik", "fincan", "tencere"]


@pytest.mark.parametrize(
    ("one", "other", "edits"),
    [
        *[("", "", 0), ("cay", "cay", 0), ("cay", "cya", 1), ("cay", "ca", 1), ("cay", "cam", 1)],
        *[("ca", "cay", 1), ("", "ab", 2), ("bardak", "brdka", 2), ("ca", "abc", 3)],
    ],
)
def test_distance(one, other, edits):
    assert spelling.distance(one, other) == edits
    assert spelling.distance(other, one) == edits


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        *[("bardka", ["bardak"]), ("cya", ["cay"]), ("fncn", []), ("tnecere", ["tencere"]), ("tencer", ["tencere"])],
        *[("brdakl", ["bardak"]), ("ca", []), ("c4y", [])],
    ],
)
def test_the_closest_words(typed, meant):
    found = spelling.closest(typed, WORDS)
    assert found[: len(meant)] == meant
    assert bool(found) == bool(meant)


def test_single_edits_are_all_words_one_edit_away():
    edits = spelling.single_edits("cay")
    assert {"cya", "ca", "cays", "kay", "cay"} - edits == {"cay"}
    assert all(spelling.distance("cay", edit) == 1 for edit in edits)
    assert len(spelling.single_edits("a" * spelling.MOST_EDITED_LETTERS)) < 500
