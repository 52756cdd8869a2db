"""The part of the OpenAPI document about what is sent to the endpoints of users: Standard Webhooks 1.0.0."""

from collections.abc import Iterable, Sequence
from typing import Any

from contracts.base import Event
from contracts.events import handler_name
from extensions.http.openapi.schemas import Schema, reference

TAG = "webhooks"
PARAMETERS: dict[str, Schema] = {
    "WebhookId": {
        "name": "webhook-id",
        "in": "header",
        "required": True,
        "description": "The id of the event, the same in every attempt: ignore an id that you have seen.",
        "schema": {"type": "string", "format": "uuid"},
    },
    "WebhookTimestamp": {
        "name": "webhook-timestamp",
        "in": "header",
        "required": True,
        "description": "The time of the attempt, in seconds since 1970. Refuse one that is more than five minutes off.",
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    },
    "WebhookSignature": {
        "name": "webhook-signature",
        "in": "header",
        "required": True,
        "description": (
            "`v1,` and the Base64 of HMAC-SHA256 over `{webhook-id}.{webhook-timestamp}.{body}`. The key is what the"
            " secret encodes in Base64 after `whsec_`. During a rotation there are two signatures, a blank between."
        ),
        "schema": {"type": "string"},
    },
}
RESPONSES: Schema = {
    "2XX": {"description": "Accepted, if it comes within 15 seconds. The body is kept for the log."},
    "410": {"description": "The endpoint is gone: it is disabled."},
    "default": {"description": "Not accepted, also a redirect: the event is sent again later, with growing pauses."},
}


def webhooks(events: Iterable[type[Event]], examples: dict[Any, Any]) -> dict[str, Schema]:
    """Return a Path Item Object for each event, by its name. `examples` has the `data` of each."""
    return {event.event_type: {"post": _operation(event, examples[event])} for event in events}


def parameters(events: Sequence[type[Event]]) -> dict[str, Schema]:
    """Return the components that these need."""
    return dict(PARAMETERS) if events else {}


def _operation(event: type[Event], example: Any) -> Schema:
    return {
        "operationId": handler_name(event),
        "tags": [TAG],
        "summary": (event.__doc__ or "").strip().partition("\n")[0].rstrip("."),
        "description": f"Sent to endpoints whose `events` contain `{event.event_type}`, or a pattern that matches it.",
        "security": [],
        "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in PARAMETERS],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["type", "timestamp", "data"],
                        "properties": {
                            "type": {"const": event.event_type},
                            "timestamp": {"type": "string", "format": "date-time"},
                            "data": reference(event),
                        },
                    },
                    "example": {"type": event.event_type, "timestamp": "2026-11-22T09:14:29.144Z", "data": example},
                }
            },
        },
        "responses": RESPONSES,
    }
