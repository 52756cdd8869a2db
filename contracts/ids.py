"""Identifiers: UUID version 7, so that they sort by their creation time."""

from uuid import UUID

import uuid6

from contracts.base import UUID_SPELLING
from contracts.errors import ValidationFailed


def new_id() -> UUID:
    """Return a fresh UUIDv7; ids made by one process are strictly increasing."""
    return UUID(int=uuid6.uuid7().int)


def parse_id(field: str, value: object) -> UUID:
    """Return `value` as a UUID of any version; raises ValidationFailed naming `field`."""
    if isinstance(value, UUID):
        return value
    text = str(value)
    # UUID() also accepts other spellings, such as 1_2 for 12, so two different texts could mean the same id.
    if not UUID_SPELLING.fullmatch(text):
        raise ValidationFailed.field(field, "must be a UUID")
    return UUID(text)


def made_at(made: UUID) -> float | None:
    """Return when an id was created, in seconds since 1970, precise to a millisecond; None if it is not a UUIDv7."""
    return (made.int >> 80) / 1000 if made.version == 7 else None
