"""What a message's headers become before they are stored or sent on."""

import json

from extensions.messaging.storable import MAX_HEADER_DEPTH, plain_headers


def nested(depth):
    value = "bottom"
    for _ in range(depth):
        value = {"in": value}
    return value


def test_headers_become_json_whatever_they_hold():
    # RabbitMQ 3.10 refuses numbers that are none before they get here; other brokers need not.
    odd = {"nan": float("nan"), "inf": float("-inf"), "nul": "a\x00b", "half": "\ud800", "bytes": b"\xff", "x\x00": 1}
    plain = plain_headers(odd)
    json.dumps(plain, allow_nan=False)
    assert all("\x00" not in f"{name}{value}" for name, value in plain.items())
    assert plain["half"].encode() == b"\\ud800"  # written out: half a character is no text
    assert (plain["nan"], plain["inf"]) == ("nan", "-inf")


def test_what_is_plain_stays():
    plain = {"attempts": 3, "ratio": 0.5, "sure": True, "nothing": None, "death": [{"queue": "q", "count": 20}]}
    assert plain_headers(plain) == plain
    assert plain_headers(None) == {}


def test_nesting_has_an_end():
    assert plain_headers({"x": nested(MAX_HEADER_DEPTH)}) == {"x": nested(MAX_HEADER_DEPTH)}
    assert "nested too deep" in json.dumps(plain_headers({"x": nested(500)}))
