"""Poison messages: invalid messages for every kind of queue.

`reason` is a part of the reason that the dead letter must record.
"""

import json
import pickle
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from struct import pack

import amqp

from contracts.ids import new_id
from tests.support import IS_PLAIN_WIRE

TEN_MEGABYTES = 10 * 1024 * 1024
TRAP = Path(tempfile.gettempdir(), "order-suite-a-pickle-was-loaded")


class Trap:
    """Unpickling it creates the file TRAP."""

    def __reduce__(self):
        return Path.touch, (TRAP,)


@dataclass(frozen=True)
class Poison:
    name: str
    reason: str
    body: bytes | str = b"{"
    properties: dict = field(default_factory=dict)
    raw: bytes | None = None
    """The encoded properties, for values that py-amqp does not write."""

    def __str__(self):
        return self.name

    def publish(self, channel, exchange, routing_key, **properties):
        """Publish it; `properties` are those of a valid message of this kind."""
        good = {"content_type": "application/json", "delivery_mode": 2, "message_id": str(new_id())}
        message = Unwritable(self.body, **(good | properties | self.properties))
        message.raw = self.raw
        channel.basic_publish(message, exchange, routing_key)


class Unwritable(amqp.Message):
    """A message with properties that py-amqp refuses to write."""

    raw = None

    def _serialize_properties(self):
        if isinstance(self.body, str):
            self.body = self.body.encode()
        return super()._serialize_properties() if self.raw is None else self.raw


def longstr(value):
    return pack(">I", len(value)) + value


def shortstr(value):
    return bytes([len(value)]) + value


def nested_arrays(depth):
    """An AMQP field of nested lists. A frame has room for about 26,000 levels."""
    value = b"V"
    for _ in range(depth):
        value = b"A" + longstr(value)
    return value


def nested_tables(depth):
    value = b"V"
    for _ in range(depth):
        value = b"F" + longstr(shortstr(b"k") + value)
    return value


def with_header(name, value):
    """Properties of a JSON message with one header, a reply_to and a message id."""
    table = longstr(shortstr(name) + value)
    flags = 0x8000 | 0x2000 | 0x0200 | 0x0080
    kind, reply_to, message_id = b"application/json", b"nowhere", str(new_id()).encode()
    return pack(">H", flags) + shortstr(kind) + table + shortstr(reply_to) + shortstr(message_id)


UNREADABLE = [
    Poison("headers 10,000 lists deep", "properties cannot be read", raw=with_header(b"x", nested_arrays(10_000))),
    Poison("headers 10,000 tables deep", "properties cannot be read", raw=with_header(b"x", nested_tables(10_000))),
    Poison("a header of the year 500 billion", "properties cannot be read", raw=with_header(b"x", b"T" + b"\xff" * 8)),
    Poison(
        "a message_id that is no UTF-8", "properties cannot be read", raw=pack(">H", 0x0080) + shortstr(b"\xff\xfe")
    ),
    Poison("a content_type that is no UTF-8", "properties cannot be read", raw=pack(">H", 0x8000) + shortstr(b"\xff")),
]
# Each takes a processor about a second.
DEEP = [one for one in UNREADABLE if " deep" in one.name]

# Invalid bodies and properties, for any kind of message.
ANYWHERE = [
    *([] if IS_PLAIN_WIRE else UNREADABLE),  # without the fast wire they end the process (messaging/wire/plain.py)
    Poison("no properties at all", "content type", raw=pack(">H", 0)),
    Poison("no content_type", "content type", properties={"content_type": None}),
    Poison("pickle", "content type", pickle.dumps(Trap()), {"content_type": "application/x-python-serialize"}),
    Poison("pickle that claims to be JSON", "JSON", pickle.dumps(Trap())),
    Poison("another content type", "content type", "{}", {"content_type": "text/plain"}),
    Poison("zipped", "content encoding", b"\x1f\x8b\x08\x00", {"content_encoding": "gzip"}),
    Poison("another character set", "content encoding", "{}".encode("utf-16"), {"content_encoding": "utf-16"}),
    Poison(
        "a codec of quadratic time",
        "encoding",
        b"a" * 250_000 + b"-" + b"a" * 750_000,
        {"content_encoding": "punycode"},
    ),
    Poison("empty", "JSON", b""),
    Poison("broken JSON", "JSON", '{"args": [1,'),
    Poison("no UTF-8", "JSON", b'{"args": "\xff\xfe"}'),
    Poison("NUL", "JSON", b"\x00" * 100),
    Poison("10,000 levels", "JSON", "[" * 10_000),
    Poison("10 MB", "bytes", " " * TEN_MEGABYTES),
    Poison("10 MB of levels", "bytes", "[" * TEN_MEGABYTES),
]


def invalid_events(good, field, event_type):
    """Invalid messages in place of an event.

    `good` is the JSON object of a valid event, `field` one of its ids, `event_type` the name of another event.
    """
    whole = json.dumps(good)

    def other(value):
        return whole[:-1] + f', "{field}": {value}}}'

    return [
        *ANYWHERE,
        Poison("a list", "must be an object", "[]"),
        Poison("null", "must be an object", "null"),
        Poison("a missing field", f"{field}: is required", json.dumps({k: v for k, v in good.items() if k != field})),
        Poison("cut off", "JSON", whole[:-9]),
        Poison("trailing bytes", "JSON", whole + "\x00"),
        Poison("a field twice", field, other('"7"')),
        Poison("half a surrogate pair", "JSON", other('"\\ud800"')),
        Poison("a number of 5,000 digits", "JSON", other("9" * 5_000)),
        Poison("NaN", field, other("NaN")),
        Poison("10,000 levels in a field", "JSON", other("[" * 10_000 + "]" * 10_000)),
        Poison("no message_id", "message_id", whole, {"message_id": None}),
        Poison("a message_id that is no UUID", "message_id", whole, {"message_id": "7"}),
        Poison("a huge message_id", "message_id", whole, {"message_id": "9" * 255}),
        Poison("another event's name", "type", whole, {"type": event_type}),
    ]


def _call_with(argument):
    return f'{{"args": [{argument}], "kwargs": {{}}}}'


INVALID_CALLS = [
    *ANYWHERE,
    Poison("no reply_to", "reply_to", '{"args": [], "kwargs": {}}', {"reply_to": None}),
    Poison("a list", "no call", "[]"),
    Poison("arguments that are no list", "no call", '{"args": 7, "kwargs": {}}'),
    Poison("a missing field", "no call", '{"args": []}'),
    Poison("a number of 5,000 digits", "JSON", _call_with("9" * 5_000)),
    Poison("NaN", "NaN", _call_with("NaN")),
    Poison("10,000 levels in an argument", "too deep", _call_with("[" * 10_000 + "]" * 10_000)),
]
