"""Which kinds of messages a user wants on which channels. Pure functions."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from contracts.notifications import KINDS, PreferenceItem, PreferencesView, SetPreferences
from contracts.orders import OrderCreated
from contracts.users import UserRegistered

NO_MAIL = frozenset({OrderCreated.event_type, UserRegistered.event_type})
"""Kinds that are not mailed unless the user wants it: another mail follows at once."""


class Channel(StrEnum):
    """A way to tell a user something."""

    IN_APP = "in_app"
    EMAIL = "email"
    WEBHOOK = "webhook"


def wants(preferences: Mapping[str, Any] | None, kind: str, channel: Channel) -> bool:
    """Tell whether a user with these stored preferences wants a kind of message on a channel."""
    return bool((preferences or {}).get(kind, {}).get(channel, default(kind, channel)))


def default(kind: str, channel: Channel) -> bool:
    """Return what holds for users who have not said anything."""
    return channel is not Channel.EMAIL or kind not in NO_MAIL


def view_of(preferences: Mapping[str, Any] | None) -> PreferencesView:
    """Return stored preferences as they are shown: every kind with every channel."""
    return PreferencesView(
        items=tuple(
            PreferenceItem(
                kind=kind,
                in_app=wants(preferences, kind, Channel.IN_APP),
                email=wants(preferences, kind, Channel.EMAIL),
                webhook=wants(preferences, kind, Channel.WEBHOOK),
            )
            for kind in KINDS
        )
    )


def stored(wanted: SetPreferences) -> dict[str, dict[str, bool]]:
    """Return preferences as they are stored: what the user stated. Of a kind that is stated twice, the last holds."""
    found: dict[str, dict[str, bool]] = {}
    for item in wanted.items:
        found[item.kind] = {name: getattr(item, name) for name in Channel if name in item.model_fields_set}
    return found
