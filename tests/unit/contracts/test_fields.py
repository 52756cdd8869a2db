"""The values that the field types accept, and their form in JSON."""

import json
import re
import unicodedata
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from contracts.base import MAX_QUANTITY, MAX_STOCK, Currency, Instant, Money, PageLimit, Quantity, Sku, StockLevel
from contracts.text import Line, Text, is_blank

FILLERS = {0x115F, 0x1160, 0x3164, 0xFFA0}
MONEY = st.decimals(min_value=0, max_value="9999999999.99", places=2)


@cache
def model(kind):
    """A model with one field `value` of the type."""
    return type("Model", (BaseModel,), {"__annotations__": {"value": kind}})


def accepted(kind, value):
    return model(kind)(value=value).value


def refused(kind, value):
    with pytest.raises(ValidationError) as error:
        accepted(kind, value)
    return error.value.errors()[0]["msg"]


def matches_its_schema(kind, value):
    pattern = model(kind).model_json_schema()["properties"]["value"]["pattern"]
    # A pattern of JSON Schema has the syntax of ECMAScript, where $ does not match before a line break at the end.
    return bool(re.search(re.sub(r"\$$", r"\\Z", pattern), value))


def in_json(kind, value):
    return json.loads(model(kind)(value=value).model_dump_json())["value"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("0", "0.00"),
        ("7", "7.00"),
        ("7.5", "7.50"),
        ("0.01", "0.01"),
        ("9999999999.99", "9999999999.99"),
        (Decimal("1E+3"), "1000.00"),
    ],
)
def test_money_has_two_places_in_json(value, shown):
    assert in_json(Money, value) == shown


@given(MONEY)
def test_money_comes_back_as_it_went_out(amount):
    assert accepted(Money, in_json(Money, amount)) == amount


@pytest.mark.parametrize(
    "value",
    [
        *(7, 7.5, 0.1, True, None, [], {}),
        *("", " 7", "7\n", "7.", ".5", "7,50", "1_0", "0x7", "+7", "-7", "-0.01", "1e3", "1E+3", "7.005"),
        *("NaN", "Infinity", "-Infinity", "sNaN", "12345678901", "\u0661\u0662.\u0665\u0660"),
        *(Decimal("-0.01"), Decimal("7.005"), Decimal("NaN"), Decimal("Infinity"), Decimal(10**10)),
    ],
    ids=repr,
)
def test_invalid_amounts_are_refused(value):
    assert refused(Money, value)


def test_a_client_that_sends_a_number_as_money_is_told_what_to_send():
    assert 'decimal string with at most two places, such as "149.90"' in refused(Money, 149.9)


@pytest.mark.parametrize(
    "value",
    [
        "2026-01-31T08:30:00Z",
        "2026-01-31T11:30:00+03:00",
        "2026-01-31T08:30:00.000000Z",
        datetime(2026, 1, 31, 3, 30, tzinfo=timezone(timedelta(hours=-5))),
    ],
)
def test_an_instant_is_utc_with_microseconds_and_a_z_in_json(value):
    assert accepted(Instant, value) == datetime(2026, 1, 31, 8, 30, tzinfo=UTC)
    assert in_json(Instant, value) == "2026-01-31T08:30:00.000000Z"


@given(st.datetimes(timezones=st.just(UTC)))
def test_an_instant_comes_back_to_the_microsecond(at):
    assert accepted(Instant, in_json(Instant, at)) == at


@pytest.mark.parametrize("value", ["2026-01-31T08:30:00", datetime(2026, 1, 31, 8, 30)])  # noqa: DTZ001
def test_an_instant_without_an_offset_is_refused(value):
    assert "offset from UTC" in refused(Instant, value)


@pytest.mark.parametrize("value", [1769848200, 1769848200.5, "1769848200", "2026-01-31", "", "T", "2026-02-30T00:00Z"])
def test_what_is_no_instant(value):
    assert refused(Instant, value)


@pytest.mark.parametrize("value", ["", "Çığ öşü €", "two\nlines\tand a tab", "📦"])
def test_text(value):
    assert accepted(Text, value) == value


@pytest.mark.parametrize("value", ["a\x00b", "\u202egnp", "\x1b[31m", "\x7f", "\ud800", "a\udfff", 7, None], ids=ascii)
def test_what_neither_postgresql_nor_a_person_can_read_is_no_text(value):
    assert refused(Text, value)


@pytest.mark.parametrize(("kind", "least", "most"), [(Quantity, 1, MAX_QUANTITY), (StockLevel, 0, MAX_STOCK)])
def test_quantities_have_bounds_and_are_whole_numbers(kind, least, most):
    assert [accepted(kind, least), accepted(kind, most)] == [least, most]
    for value in (least - 1, most + 1, float(most + 1), 1e300, True, 1.5, float("inf"), float("nan"), "1", None):
        assert refused(kind, value)


@pytest.mark.parametrize("kind", [Quantity, StockLevel, PageLimit])
def test_an_integer_may_be_written_with_a_point_or_an_exponent(kind):
    for text in ("1.0", "1e0", "10E-1"):
        value = accepted(kind, json.loads(text))
        assert (value, type(value)) == (1, int)


@pytest.mark.parametrize("value", ["A", "pen-1.2_b", "9" * 64])
def test_a_sku(value):
    assert accepted(Sku, value) == value


@pytest.mark.parametrize("value", ["", "-A", "a b", "A\n", "kalemİ", "9" * 65])
def test_what_is_no_sku(value):
    assert refused(Sku, value)


def test_a_currency_is_three_capital_letters():
    assert accepted(Currency, "TRY") == "TRY"
    for value in ("try", "TRYX", "TR", "TR1", "TRY\n"):
        assert refused(Currency, value)


BLANKS = {
    "spaces": "   ",
    "no-break and ideographic spaces": "\u00a0\u3000",
    "zero width": "\u200b\u200c\u200d\ufeff\u2060",
    "Hangul fillers": "\u115f\u1160\u3164\uffa0",
    "soft hyphen, grapheme joiner, variation selector": "\u00ad\u034f\ufe0f",
    "marks of direction": "\u200e\u200f\u061c",
    "a Mongolian separator": "\u180e",
    "tags": "\U000e0041\U000e007f",
    "control characters": "\x80\x9f",
    "an empty Braille pattern": "\u2800",
}
LAST_OF_THE_BASIC_PLANE = "\uffff"  # the schemas do not know which characters beyond it are invisible
BREAKS = ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x85", "\u2028", "\u2029"]


@pytest.mark.parametrize("blank", BLANKS.values(), ids=BLANKS)
def test_a_line_that_shows_nothing_is_blank(blank):
    assert refused(Line, blank)
    assert matches_its_schema(Line, blank) == (max(blank) > LAST_OF_THE_BASIC_PLANE)
    assert accepted(Line, f"{blank}\u1112{blank}") == f"{blank}\u1112{blank}"
    assert matches_its_schema(Line, f"{blank}\u1112{blank}")


@pytest.mark.parametrize("line_break", BREAKS, ids=ascii)
def test_a_line_has_no_line_break_of_unicode(line_break):
    assert refused(Line, f"two{line_break}lines")
    assert not matches_its_schema(Line, f"two{line_break}lines")


def test_every_character_that_only_separates_is_blank():
    separators = [letter for letter in map(chr, range(0x110000)) if unicodedata.category(letter) in {"Zs", "Zl", "Zp"}]
    assert all(map(is_blank, separators))
    assert not any(map(is_blank, filter(str.isalnum, map(chr, set(range(0x110000)) - FILLERS))))


BASIC_PLANE = st.characters(codec="utf-8", max_codepoint=ord(LAST_OF_THE_BASIC_PLANE))


@given(st.text(BASIC_PLANE, min_size=1, max_size=5))
def test_the_schema_of_a_line_is_what_is_accepted(value):
    try:
        is_accepted = accepted(Line, value) == value
    except ValidationError:
        is_accepted = False
    assert matches_its_schema(Line, value) == is_accepted


@pytest.mark.parametrize("value", ["", "   ", "two\nlines", "x" * 201])
def test_a_reason_is_one_line_that_says_something(value):
    assert refused(Line, value)
    assert accepted(Line, " three packs were torn ") == " three packs were torn "
