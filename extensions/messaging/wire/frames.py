"""AMQP frames of the two methods that are sent most often: an acknowledgement, and a transient JSON message.

py-amqp encodes them field by field and makes one system call per method. Here most bytes are constants, and the frames
of several methods are written together: `channel.send(acknowledgement(...), message(...))`.
"""

import functools
import struct
from collections.abc import Mapping

# AMQP 0-9-1, 4.2.3: a frame is its type, channel, length, payload and end.
METHOD, HEADER, BODY = 1, 2, 3
END = b"\xce"
FRAME = struct.Struct(">BHI")
FRAME_OVERHEAD = FRAME.size + len(END)

BASIC, PUBLISH, ACK = 60, 40, 80
_ACK = struct.Struct(">BHIHHQBB")
DELIVER = (BASIC, 60)
_DELIVERY = struct.Struct(">Q?")
_PUBLISH = struct.Struct(">HHH")
_HEADER = struct.Struct(">HHQH")

# Flags of the properties that are present, in the order of the properties in the frame.
TYPE_AND_ENCODING, HEADERS, CORRELATION_ID, REPLY_TO, EXPIRATION = 0xC000, 0x2000, 0x0400, 0x0200, 0x0100
JSON = b"\x10application/json\x05utf-8"


def acknowledgement(channel_id: int, tag: int) -> bytes:
    """Return the frame that acknowledges one message."""
    return _ACK.pack(METHOD, channel_id, 13, BASIC, ACK, tag, 0, END[0])


def delivery(method: bytes) -> tuple[str, int, bool, str, str]:
    """Return the arguments of basic.deliver: consumer tag, delivery tag, redelivered, exchange, routing key.

    A routing key may be any bytes. Bytes that are not UTF-8 are replaced: an error here would end the reader.
    """
    end = 5 + method[4]
    tag, redelivered = _DELIVERY.unpack_from(method, end)
    exchange, key = end + 10, end + 10 + method[end + 9]
    return (
        method[5:end].decode(),
        tag,
        redelivered,
        method[exchange:key].decode(),
        method[key + 1 : key + 1 + method[key]].decode("utf-8", "replace"),
    )


def message(
    channel_id: int,
    frame_max: int,
    body: str,
    exchange: str,
    routing_key: str,
    *,
    mandatory: bool = False,
    headers: Mapping[str, str] | None = None,
    correlation_id: str = "",
    reply_to: str = "",
    expiration: str = "",
) -> bytes:
    """Return the frames that publish a transient message with a JSON body.

    Raises ValueError where a name or an id has more than 255 bytes.
    """
    content = body.encode()
    flags, properties = TYPE_AND_ENCODING, JSON
    if headers:
        flags |= HEADERS
        table = b"".join([_short(name) + b"S" + _long(value) for name, value in headers.items()])
        properties += len(table).to_bytes(4) + table
    for flag, value in ((CORRELATION_ID, correlation_id), (REPLY_TO, reply_to), (EXPIRATION, expiration)):
        if value:
            flags |= flag
            properties += _short(value)
    header = _HEADER.pack(BASIC, 0, len(content), flags) + properties
    frames = [_publish(channel_id, exchange, routing_key, mandatory), _frame(HEADER, channel_id, header)]
    room = frame_max - FRAME_OVERHEAD
    frames += [_frame(BODY, channel_id, content[at : at + room]) for at in range(0, len(content), room)]
    return b"".join(frames)


@functools.lru_cache(maxsize=1024)
def _publish(channel_id: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:
    method = _PUBLISH.pack(BASIC, PUBLISH, 0) + _short(exchange) + _short(routing_key) + bytes([mandatory])
    return _frame(METHOD, channel_id, method)


def _frame(kind: int, channel_id: int, payload: bytes) -> bytes:
    return FRAME.pack(kind, channel_id, len(payload)) + payload + END


def _short(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return bytes((len(data),)) + data


def _long(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return len(data).to_bytes(4) + data
