"""Gathers everything that the services keep about a user, in responses of a bounded size."""

from collections.abc import Callable, Mapping
from typing import Any, cast
from uuid import UUID

from contracts.account_exports import AccountExport
from contracts.base import MAX_PAGE, Actor, Json, PageRequest
from contracts.errors import ValidationFailed
from contracts.notifications import NotificationFilter
from contracts.services import Services

MAX_RECORDS = 500
"""Records of one response: about a megabyte, and at most eleven calls."""

ListPage = Callable[[int, str | None], Mapping[str, Any]]
"""Returns a page of a list: (limit, cursor) -> {items, next_cursor}."""


def gather(services: Services, user_id: UUID, actor: Actor, cursor: str | None) -> Json[AccountExport]:
    """Return the records that follow `cursor`, the `next_cursor` of the last response. Raises ValidationFailed."""
    lists = _lists(services, user_id, actor)
    first, position = _parse(cursor, tuple(lists))
    found: dict[str, Any] = {
        "user": services.users.get_user(user_id, actor=actor),
        "notification_preferences": services.notifications.get_preferences(user_id, actor=actor)["items"],
        **{name: [] for name in lists},
        "next_cursor": None,
    }
    left = MAX_RECORDS
    for name in tuple(lists)[tuple(lists).index(first) :]:
        while True:
            if not left:
                found["next_cursor"] = f"{name}:{position or ''}"
                return cast("Json[AccountExport]", found)
            page = lists[name](min(left, MAX_PAGE), position)
            found[name] += page["items"]
            left -= len(page["items"])
            position = page["next_cursor"]
            if position is None:
                break
    return cast("Json[AccountExport]", found)


def _lists(services: Services, user_id: UUID, actor: Actor) -> dict[str, ListPage]:
    """Return what lists the records of each kind, by the names of the fields of AccountExport."""

    def page(limit: int, cursor: str | None) -> PageRequest:
        return PageRequest(limit=limit, cursor=cursor)

    return {
        "sessions": lambda *at: services.users.list_sessions(user_id, page(*at), actor=actor),
        "orders": lambda *at: services.orders.export_orders(user_id, page(*at), actor=actor),
        "payments": lambda *at: services.payments.export_payments(user_id, page(*at), actor=actor),
        # Everyone, administrators too, gets only the own notifications.
        "notifications": lambda limit, cursor: services.notifications.list_notifications(
            NotificationFilter(limit=limit, cursor=cursor), actor=actor
        ),
        "webhooks": lambda *at: services.notifications.list_webhooks(page(*at), actor=actor),
    }


def _parse(cursor: str | None, names: tuple[str, ...]) -> tuple[str, str | None]:
    """Return the list in which to go on, and the position in it."""
    name, colon, position = (cursor or f"{names[0]}:").partition(":")
    if not colon or name not in names:
        raise ValidationFailed.field("cursor", "must be the next_cursor of the last response")
    return name, position or None
