"""Validation of received messages: content type, size, routing, and the event that the body holds."""

import re
from typing import Any
from uuid import UUID

import amqp
from pydantic import ValidationError

from contracts.base import Event, Received
from contracts.events import EVENTS, queue_name
from contracts.validation import field_errors
from extensions.messaging.wire.connection import UNREADABLE_HEADER
from extensions.observability.traces import trace_of

MAX_BODY_BYTES = 1024 * 1024
ENCODINGS = {"utf-8", "utf8"}
# Version 0.1.0 named the retry queues `retry.<n>ms`. A broker keeps them when the suite is upgraded (docs/security.md).
RETRY_QUEUE = re.compile(r"(again|retry)\.[0-9]+ms")


class Undecodable(Exception):
    """The message is not one that its queue may hold. The text is the reason. A retry cannot succeed."""


class Forged(Undecodable):
    """The message came by a way that its sender had no permission for. It must never be handled, nor replayed."""


def require_json(message: amqp.Message) -> None:
    """Raise Undecodable unless `message` declares JSON as its content and has at most MAX_BODY_BYTES."""
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


def require_routing(message: amqp.Message, *addresses: str) -> None:
    """Raise Forged unless `message` was published to one of these routing keys, and through our queues only.

    The broker checks permission for the routing key of a message, but not for the keys that a sender adds in the
    headers CC and BCC, nor for the target to which a sender's own queue dead-letters. A message that came by such a
    route is recognised by its routing key, or by the queues in its x-death header.
    """
    sent_to = message.delivery_info["routing_key"]
    if sent_to not in addresses:
        reason = f"it was published to {sent_to!r} and routed here by its headers"
        raise Forged(reason)
    _require_own_queues(_deaths(message))


def require_genuine_death(message: amqp.Message, service: str) -> None:
    """Raise Forged unless the message that the broker dead-lettered had come to its queue as require_routing demands.

    The broker writes into x-death by which routing key a message came; the first one is not from its headers.
    """
    last, *others = _deaths(message) or [{}]
    _require_own_queues(others)
    queue, keys = (last.get("queue"), last.get("routing-keys")) if isinstance(last, dict) else (None, None)
    addresses = {queue, *(event for event, kind in EVENTS.items() if queue_name(service, kind) == queue)}
    if isinstance(keys, list) and keys and keys[0] not in addresses:
        reason = f"it was published to {str(keys[0])[:255]!r} and routed to {str(queue)[:255]} by its headers"
        raise Forged(reason)


def _deaths(message: amqp.Message) -> list[Any]:
    """Return the entries of x-death, the latest first; a sender may have written anything there."""
    deaths = (message.headers or {}).get("x-death") or []
    return deaths if isinstance(deaths, list) else [deaths]


def _require_own_queues(deaths: list[Any]) -> None:
    for death in deaths:
        queue = death.get("queue") if isinstance(death, dict) else death
        if not RETRY_QUEUE.fullmatch(str(queue)):
            reason = f"it was dead-lettered by the queue {str(queue)[:255]!r}"
            raise Forged(reason)


def require_event(message: amqp.Message, kind: type[Event], service: str) -> Received[Any]:
    """Return the event of this `kind` that `message` holds for its consumer `service`. Raises Undecodable."""
    require_json(message)
    require_routing(message, kind.event_type, queue_name(service, kind))
    properties = message.properties
    if properties.get("type", kind.event_type) != kind.event_type:
        reason = f"the type is {properties['type']!r}, not {kind.event_type}"
        raise Undecodable(reason)
    try:
        message_id = UUID(str(properties.get("message_id")))
    except ValueError:
        reason = f"the message_id {properties.get('message_id')!r} is not a UUID"
        raise Undecodable(reason) from None
    trace = trace_of(message.headers or {}, service)
    try:
        event = kind.model_validate_json(message.body)
    except ValidationError as error:
        wrong = "; ".join(f"{one.field or 'body'}: {one.message}" for one in field_errors(error))
        raise Undecodable(f"not a valid {kind.__name__}: {wrong}") from None
    return Received(event=event, message_id=message_id, request_id=trace.request_id, traceparent=trace.traceparent)
