import json
import time

import pytest

from contracts.errors import ValidationFailed
from extensions.http.message.errors import MalformedJson
from extensions.http.message.strict_json import MAX_DEPTH, dump, parse_object


def nested(levels):
    return b'{"a":' * levels + b"1" + b"}" * levels


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"{}", {}),
        (b' {"a": [1, 2.5, "x", null, true]} ', {"a": [1, 2.5, "x", None, True]}),
        ('{"ad": "Gül ✓"}'.encode(), {"ad": "Gül ✓"}),
        (rb'{"emoji": "\ud83d\ude00"}', {"emoji": "\U0001f600"}),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),  # a byte order mark
        (b'{"twice": {"a": 1}, "again": {"a": 2}}', {"twice": {"a": 1}, "again": {"a": 2}}),
    ],
)
def test_json_objects_are_parsed(body, value):
    assert parse_object(body) == value


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty"),
        (b"{", "line 1, column 2"),
        (b"{'a': 1}", "line 1, column 2"),
        (b'{"a": 1} x', "Extra data"),
        (b'{"a": 1, "a": 2}', 'field "a" twice'),
        (b'{"in": [{"b": 1, "b": 1}]}', 'field "b" twice'),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": Infinity}', "Infinity"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b'{"a": "\xff"}', "UTF-8"),
        (b"\xef\xbb\xbf", "empty"),
        ("{}".encode("utf-16"), "not UTF-8"),
        ("\ufeff\ufeff{}".encode(), "byte order mark"),
        (rb'{"a": "\ud800"}', "surrogate"),
        (rb'{"\udfff": 1}', "surrogate"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "too long"),
    ],
)
def test_invalid_json_is_refused_with_the_reason(body, reason):
    with pytest.raises(MalformedJson) as refused:
        parse_object(body)
    assert reason in str(refused.value)


def test_a_duplicate_among_thousands_of_fields_is_found_in_linear_time():
    names = [f"{number:04x}" for number in range(6000)]
    body = ("{" + "".join(f'"{name}":1,' for name in names) + '"last":1,"last":1}').encode()
    assert len(body) < 64 * 1024
    started = time.thread_time()
    with pytest.raises(MalformedJson, match='field "last" twice'):
        parse_object(body)
    assert time.thread_time() - started < 0.1


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"1", b"null", b"true"])
def test_json_that_is_no_object_is_refused(body):
    with pytest.raises(ValidationFailed, match="must be a JSON object"):
        parse_object(body)


def test_the_nesting_limit_is_exact():
    assert parse_object(nested(MAX_DEPTH))
    for body in (nested(MAX_DEPTH + 1), b'{"a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}"):
        with pytest.raises(MalformedJson, match="deeper"):
            parse_object(body)


@pytest.mark.parametrize("body", [b"[" * 60_000, nested(10_000), b'{"a":' * 10_000])
def test_no_nesting_depth_crashes_the_process(body):
    with pytest.raises(MalformedJson):
        parse_object(body)


def test_dump_is_compact_utf8():
    assert dump({"ad": "Gül", "n": [1, None]}) == '{"ad":"Gül","n":[1,null]}'.encode()
    assert json.loads(dump({"a": "\u2028"})) == {"a": "\u2028"}


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":[' + b",".join([b"1"] * 30_000) + b"]}",
        b'{"a":[' + b",".join([b"{}"] * 20_000) + b"]}",
        b'{"a":[' + b",".join([b'{"b":1}'] * 8000) + b"]}",
        b'{"a":[' + b",".join([b"[]"] * 9000) + b"]}",
        b'{"a":{' + b",".join(b'"%d":{}' % number for number in range(7000)) + b"}}",
    ],
    ids=["numbers", "empty objects", "objects", "lists", "objects in an object"],
)
def test_thousands_of_values_are_refused_before_they_cost_more_than_others(body):
    with pytest.raises(MalformedJson, match="more than 10000 values, or 1000 objects and lists"):
        parse_object(body)


def test_the_largest_bodies_are_parsed():
    wide = {str(number): "," for number in range(5000)}
    assert parse_object(dump(wide)) == wide
    lines = {"items": [{"product_id": "x" * 36, "tags": []}] * 400}
    assert parse_object(dump(lines)) == lines
