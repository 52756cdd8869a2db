"""Identifiers."""

from uuid import UUID, uuid4

import pytest

from contracts.errors import ValidationFailed
from contracts.ids import made_at, new_id, parse_id


def test_ids_sort_by_the_time_they_were_made():
    made = [new_id() for _ in range(1000)]
    assert made == sorted(set(made))
    assert [str(one) for one in made] == sorted(str(one) for one in made)
    assert {(one.version, type(one)) for one in made} == {(7, UUID)}


KNOWN = "019aac5e-7c00-72b4-8c35-e1d7a90b2f64"


@pytest.mark.parametrize("known", [new_id(), uuid4()])
def test_an_id_of_any_version_is_parsed(known):
    assert parse_id("order_id", str(known)) == parse_id("order_id", known) == known
    assert parse_id("order_id", str(known).upper()) == known


@pytest.mark.parametrize(
    "value",
    [
        *(None, "", "7", 7, KNOWN[:-1], "x" * 36, ["a"], {}, "\x00", "\ud800"),
        # Texts that UUID() accepts, some of them as another id:
        *(KNOWN.replace("f64", "_64"), "+" + KNOWN[1:], " " + KNOWN[1:], KNOWN + "\n", KNOWN.replace("9", "\uff19")),
        *("{" + KNOWN + "}", "urn:uuid:" + KNOWN, KNOWN.replace("-", ""), KNOWN.replace("9", "\u0669")),
    ],
    ids=ascii,
)
def test_what_is_no_id_is_refused_by_its_field(value):
    with pytest.raises(ValidationFailed) as refusal:
        parse_id("order_id", value)
    assert [error.field for error in refusal.value.errors] == ["order_id"]


def test_the_time_of_an_id_is_told_where_its_version_has_one():
    assert made_at(UUID("018bcfe5-687b-7000-8000-000000000000")) == 1_700_000_000.123
    assert made_at(uuid4()) is None
