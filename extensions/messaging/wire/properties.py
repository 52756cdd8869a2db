"""Message properties that py-amqp cannot decode: the message is delivered without them, and says why."""

from collections.abc import Callable
from typing import Any

import amqp
from amqp import method_framing
from amqp.serialization import decode_properties_basic, dumps

# In the place of properties that cannot be read: says why.
UNREADABLE_HEADER = "x-unreadable"

# AMQP 0-9-1, 4.2.6: a frame that is a message's header, where its properties begin, and the flag of "only headers".
CONTENT_HEADER = 2
PROPERTIES_AT = 12
HEADERS_ONLY = b"\x20\x00"


def frame_handler(connection: amqp.Connection, callback: Callable[..., Any]) -> Callable[[Any], bool]:
    """Return py-amqp's reader of frames, but for messages whose properties it cannot read: they come with none.

    Nested too deep, no UTF-8, a time after the year 9999: the error would end the connection or the process, and the
    broker would deliver the message again to the next one.
    """
    on_frame = method_framing.frame_handler(connection, callback)

    def on_frame_or_without_properties(frame: tuple[int, int, bytes]) -> bool:
        kind, channel, payload = frame
        try:
            return on_frame(frame)
        except Exception as error:
            if kind != CONTENT_HEADER or _can_be_read(payload):
                raise
            reason = f"its properties cannot be read ({type(error).__name__})"
            without = bytes(payload[:PROPERTIES_AT]) + HEADERS_ONLY + dumps("F", [{UNREADABLE_HEADER: reason}])
            return on_frame((kind, channel, without))

    return on_frame_or_without_properties


def _can_be_read(content_header: bytes) -> bool:
    try:
        decode_properties_basic(content_header, PROPERTIES_AT)
    except Exception:  # noqa: BLE001  (py-amqp promises nothing here)
        return False
    return True
