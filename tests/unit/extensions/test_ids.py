"""Identifiers."""

from uuid import UUID, uuid4

import pytest

from contracts.errors import ValidationFailed
from extensions.ids import new_id, parse_id


def test_ids_sort_by_the_time_they_were_made():
    made = [new_id() for _ in range(1000)]
    assert made == sorted(set(made))
    assert [str(one) for one in made] == sorted(str(one) for one in made)
    assert {(one.version, type(one)) for one in made} == {(7, UUID)}


@pytest.mark.parametrize("known", [new_id(), uuid4()])
def test_an_id_of_any_version_is_parsed(known):
    assert parse_id("order_id", str(known)) == parse_id("order_id", known) == known


@pytest.mark.parametrize(
    "value", [None, "", "7", 7, str(new_id())[:-1], "x" * 36, ["a"], {}, "\x00", "\ud800"], ids=ascii
)
def test_what_is_no_id_is_refused_by_its_field(value):
    with pytest.raises(ValidationFailed) as refusal:
        parse_id("order_id", value)
    assert [error.field for error in refusal.value.errors] == ["order_id"]
