"""Cursors: values survive a round trip, and anything else is refused."""

import base64
import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.models import Product
from contracts.errors import ValidationFailed
from contracts.ids import new_id
from extensions.storage.pagination import decode_position, encode_position

KEYS = [Product.created_at, Product.price, Product.name, Product.version, Product.id]
ROW = [datetime(2026, 1, 31, 8, 30, 0, 7, tzinfo=UTC), Decimal("149.90"), "Çay, [1]", 3, new_id()]
ONE_KEY = [Product.id]


def types(keys):
    return [key.type.python_type for key in keys]


def cursor_of(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def refused(cursor, keys):
    with pytest.raises(ValidationFailed) as refusal:
        decode_position(cursor, types(keys))
    return [error.field for error in refusal.value.errors] == ["cursor"]


def test_a_cursor_holds_the_values_of_a_row_with_their_types():
    found = decode_position(encode_position(ROW), types(KEYS))
    assert found == ROW
    assert [type(value) for value in found] == [type(value) for value in ROW]


@given(st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])), st.integers(0, 2**31))
def test_any_row_survives_a_round_trip(name, version):
    cursor = encode_position([name, version])
    assert decode_position(cursor, types([Product.name, Product.version])) == [name, version]
    assert cursor.isascii()
    assert not set("+/=&?# ") & set(cursor)  # it needs no escaping in a URL


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "!",
        "garbage",
        "ş",
        "\x00",
        "\ud800",
        "A" * 511,
        cursor_of([]),
        cursor_of({}),
        cursor_of(None),
        cursor_of(str(new_id())),
        cursor_of([str(new_id())] * 2),
        cursor_of(["7"]),
        cursor_of([None]),
        cursor_of([[str(new_id())]]),
        base64.urlsafe_b64encode(b"[" * 380).decode(),
        base64.urlsafe_b64encode(b'["\xff"]').decode(),
    ],
    ids=ascii,
)
def test_a_malformed_cursor_is_refused_by_its_field(cursor):
    assert refused(cursor, ONE_KEY)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (Product.created_at, "yesterday"),
        (Product.created_at, 7),
        (Product.price, "dear"),
        (Product.price, "NaN"),
        (Product.price, "1E-999999"),
        (Product.price, "-Infinity"),
        (Product.price, "1E+999999"),
        (Product.version, "new"),
        (Product.version, "9" * 5000),
        (Product.name, "a\x00b"),
        (Product.name, "\ud800"),
    ],
    ids=ascii,
)
def test_a_value_that_the_column_cannot_hold_is_refused(key, value):
    assert refused(cursor_of([value]), [key])


@given(st.text() | st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_any_input_is_either_decoded_or_refused(cursor):
    try:
        decode_position(cursor, types(KEYS))
    except ValidationFailed:
        pass
