"""Which kinds of messages a user wants on which channels. Pure functions."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class Channel(StrEnum):
    """A way to tell a user something."""

    IN_APP = "in_app"
    EMAIL = "email"
    WEBHOOK = "webhook"


def wants(preferences: Mapping[str, Any] | None, kind: str, channel: Channel) -> bool:
    """Tell whether a user with these stored preferences wants a kind of message on a channel."""
    return bool((preferences or {}).get(kind, {}).get(channel, default(kind, channel)))


def default(_kind: str, channel: Channel) -> bool:
    """Return what holds for users who have not said anything."""
    return channel is not Channel.EMAIL
