"""What a message has to be before anybody looks into its body."""

import amqp

from extensions.broker import UNREADABLE_HEADER

MAX_BODY_BYTES = 1024 * 1024
ENCODINGS = {"utf-8", "utf8"}


class Undecodable(Exception):
    """The message is not what its queue holds, and says why; trying again cannot help."""


def require_json(message: amqp.Message) -> None:
    """Raise Undecodable unless `message` is of a bearable length and says that it is JSON."""
    if len(message.body) > MAX_BODY_BYTES:
        reason = f"the body has {len(message.body)} bytes, {MAX_BODY_BYTES} are allowed"
        raise Undecodable(reason)
    unreadable = (message.headers or {}).get(UNREADABLE_HEADER)
    if unreadable:
        raise Undecodable(str(unreadable))
    content_type, encoding = (message.properties.get(name) for name in ("content_type", "content_encoding"))
    if content_type != "application/json":
        reason = f"the content type is {content_type!r}, not application/json"
        raise Undecodable(reason)
    if encoding and encoding.lower() not in ENCODINGS:
        reason = f"the content encoding is {encoding!r}, not utf-8"
        raise Undecodable(reason)
