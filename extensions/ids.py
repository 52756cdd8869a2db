"""Identifiers: UUID version 7, so that they sort by the time they were made."""

from uuid import UUID

import uuid6

from contracts.errors import ValidationFailed


def new_id() -> UUID:
    """Return a fresh UUIDv7; ids made by one process are strictly increasing."""
    return UUID(bytes=uuid6.uuid7().bytes)


def parse_id(field: str, value: object) -> UUID:
    """Return `value` as a UUID of any version; raises ValidationFailed naming `field`."""
    if isinstance(value, UUID):
        return value
    try:
        return UUID(str(value))
    except ValueError:
        raise ValidationFailed.field(field, "must be a UUID") from None
