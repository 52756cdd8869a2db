"""Headers of a message become JSON that PostgreSQL accepts."""

import json

from extensions.messaging.storable import MAX_HEADER_DEPTH, plain_headers


def nested(depth):
    value = "bottom"
    for _ in range(depth):
        value = {"in": value}
    return value


def test_all_headers_become_json():
    # RabbitMQ 3.10 refuses NaN and infinity; other brokers may accept them.
    odd = {"nan": float("nan"), "inf": float("-inf"), "nul": "a\x00b", "half": "\ud800", "bytes": b"\xff", "x\x00": 1}
    plain = plain_headers(odd)
    json.dumps(plain, allow_nan=False)
    assert all("\x00" not in f"{name}{value}" for name, value in plain.items())
    assert plain["half"].encode() == b"\\ud800"  # escaped: a single surrogate is not valid text
    assert (plain["nan"], plain["inf"]) == ("nan", "-inf")


def test_plain_headers_are_unchanged():
    plain = {"attempts": 3, "ratio": 0.5, "sure": True, "nothing": None, "death": [{"queue": "q", "count": 20}]}
    assert plain_headers(plain) == plain
    assert plain_headers(None) == {}


def test_the_nesting_depth_is_limited():
    assert plain_headers({"x": nested(MAX_HEADER_DEPTH)}) == {"x": nested(MAX_HEADER_DEPTH)}
    assert "nested too deep" in json.dumps(plain_headers({"x": nested(500)}))
