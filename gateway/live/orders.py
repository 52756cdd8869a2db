"""The stream of an order: the events of its timeline, and its status when that changes."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from contracts.errors import ValidationFailed
from contracts.orders import MAX_TIMELINES, STATUS_EVENTS, TimelineEntry, TimelinePositions
from contracts.services import Services
from extensions.http.message.strict_json import dump
from extensions.http.streams.encoding import encode
from gateway.live.watch import Found, Item

BATCH = MAX_TIMELINES
MAX_POSITION = 10**9


def position_of(header: str | None) -> int:
    """Return how many events of the timeline a client has seen, by its Last-Event-ID. Raises ValidationFailed."""
    if not header:
        return 0
    if not (header.isascii() and header.isdigit()) or len(header) > len(str(MAX_POSITION)):
        raise ValidationFailed.field("Last-Event-ID", "must be the id of an event of this stream, such as 3")
    return int(header)


def is_owner(timeline: Mapping[str, Any], user_id: UUID) -> bool:
    """Tell whether an order belongs to this user, by its timeline, as get_timeline returns it."""
    return any(entry["data"].get("user_id") == str(user_id) for entry in timeline["items"][:1])


def items_of(order_id: UUID, timeline: Mapping[str, Any]) -> list[Item]:
    """Return the items of a whole timeline, as get_timeline returns it."""
    return [item_of(order_id, number, entry) for number, entry in enumerate(timeline["items"], start=1)]


def item_of(order_id: UUID | str, position: int, entry: Mapping[str, Any]) -> Item:
    """Return the event of a timeline as an item of the stream.

    A change of the status comes before the event with the position: a client that got only the first part gets both
    again. So it may get a status twice, but never misses one.
    """
    shown = {name: entry[name] for name in TimelineEntry.model_fields}
    data = encode(dump(shown).decode(), event_id=str(position))
    status = STATUS_EVENTS.get(entry["event"])
    if status is not None:
        change = {
            "order_id": str(order_id),
            "status": str(status),
            "cancel_reason": entry["data"].get("reason") if status == "CANCELLED" else None,
            "at": entry["at"],
        }
        data = encode(dump(change).decode(), event="status") + data
    return Item(position, str(entry["event_id"]), data)


def fetch(services: Services, positions: Mapping[UUID, int]) -> Found:
    """Ask orders for what these timelines have after a position of each. Raises ServiceError."""
    orders = [{"order_id": str(order_id), "known": known} for order_id, known in positions.items()]
    result = services.orders.get_timelines(TimelinePositions.parse({"orders": orders}))
    items: dict[UUID, list[Item]] = {}
    for entry in result["items"]:
        order_id = UUID(entry["order_id"])
        items.setdefault(order_id, []).append(item_of(order_id, entry["position"], entry))
    return Found(items, result["is_complete"])
