"""Messages whose properties py-amqp cannot decode are delivered without them, with the reason in a header."""

from collections.abc import Callable
from typing import Any

import amqp
from amqp import method_framing
from amqp.serialization import decode_properties_basic, dumps

from extensions.messaging.wire.connection import UNREADABLE_HEADER

# AMQP 0-9-1, 4.2.6: the type of a content header frame, the offset of its properties, and the flags of a message whose
# only property is its headers.
CONTENT_HEADER = 2
PROPERTIES_AT = 12
HEADERS_ONLY = b"\x20\x00"


def frame_handler(connection: amqp.Connection, callback: Callable[..., Any]) -> Callable[[Any], bool]:
    """Return py-amqp's frame handler, extended: a message with undecodable properties is delivered without them.

    Properties are undecodable where they are nested too deep, are not UTF-8, or hold a time after the year 9999. The
    error would end the connection or the process, and the broker would deliver the message to the next process.
    """
    on_frame = method_framing.frame_handler(connection, callback)

    def on_any_frame(frame: tuple[int, int, bytes]) -> bool:
        kind, channel, payload = frame
        try:
            return on_frame(frame)
        except Exception as error:
            if kind != CONTENT_HEADER or _is_decodable(payload):
                raise
            reason = f"its properties cannot be read ({type(error).__name__})"
            replacement = bytes(payload[:PROPERTIES_AT]) + HEADERS_ONLY + dumps("F", [{UNREADABLE_HEADER: reason}])
            return on_frame((kind, channel, replacement))

    return on_any_frame


def _is_decodable(content_header: bytes) -> bool:
    try:
        decode_properties_basic(content_header, PROPERTIES_AT)
    except Exception:  # noqa: BLE001  (py-amqp documents no exceptions here)
        return False
    return True
