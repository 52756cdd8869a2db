"""The stream of a user's notifications."""

from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

from contracts.errors import ValidationFailed
from contracts.ids import parse_id
from contracts.notifications import MAX_STREAM_USERS, NotificationPositions
from contracts.services import Services
from extensions.http.message.strict_json import dump
from extensions.http.streams.encoding import encode
from gateway.live.watch import Found, Item

BATCH = MAX_STREAM_USERS
MAX_DIGITS = 18


class Position(NamedTuple):
    """The transaction that wrote a notification, and its id."""

    xact: int
    id: str

    def __str__(self) -> str:
        return f"{self.xact}-{self.id}"


def position_of(header: str | None) -> Position | None:
    """Return the position of a Last-Event-ID, None without one. Raises ValidationFailed."""
    if not header:
        return None
    xact, _, last = header.partition("-")
    try:
        if not (xact.isascii() and xact.isdigit()) or len(xact) > MAX_DIGITS:
            raise ValidationFailed
        return Position(int(xact), str(parse_id("id", last)))
    except ValidationFailed:
        raise ValidationFailed.field("Last-Event-ID", "must be the id of an event of this stream") from None


def present(services: Services) -> Position:
    """Return the position of what comes from now on. Raises ServiceError."""
    result = services.notifications.list_new(NotificationPositions.parse({"users": []}))
    return Position(result["xact"], str(result["id"]))


def subject_of(event: str, order_id: object, user_id: object) -> str:
    """Return what a notification is about, as the event log and the list of notifications both know it."""
    return f"{event} {order_id or user_id}"


def fetch(services: Services, positions: Mapping[UUID, Position]) -> Found:
    """Ask notifications for what these users have got after a position of each. Raises ServiceError."""
    users = [{"user_id": str(user), "xact": after.xact, "id": after.id} for user, after in positions.items()]
    result = services.notifications.list_new(NotificationPositions.parse({"users": users}))
    items: dict[UUID, list[Item]] = {}
    for new in result["items"]:
        items.setdefault(UUID(new["user_id"]), []).append(_item_of(new))
    return Found(items, result["is_complete"])


def _item_of(new: Mapping[str, Any]) -> Item:
    shown = new["notification"]
    position = Position(new["xact"], str(shown["id"]))
    subject = subject_of(shown["kind"], shown["order_id"], new["user_id"])
    return Item(position, subject, encode(dump(shown).decode(), event_id=str(position)))
