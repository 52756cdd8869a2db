"""The stream of an import: its progress, and the end."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, get_args
from uuid import UUID

from contracts.errors import ValidationFailed
from contracts.imports import MAX_WATCHED, OVER, ImportingRpc, ImportLookup, ImportProgress, Status
from extensions.http.message.strict_json import dump
from extensions.http.streams.encoding import encode
from gateway.live.watch import Found, Item

BATCH = MAX_WATCHED
# The event log knows nothing of imports, so each one is asked for as often as this.
RECHECK_SECONDS = 1.0
_STAGES = {status: min(number, 4) for number, status in enumerate(get_args(Status))}
_POSITION = re.compile("([0-4])-([0-9]{1,17})")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Position(NamedTuple):
    """How far an import is: the number of its stage, and when it changed last, in microseconds since 1970."""

    stage: int
    at: int

    def __str__(self) -> str:
        return f"{self.stage}-{self.at}"


NOTHING = Position(-1, 0)


def position_of(header: str | None) -> Position:
    """Return the position of a Last-Event-ID, NOTHING without one. Raises ValidationFailed."""
    if not header:
        return NOTHING
    found = _POSITION.fullmatch(header)
    if found is None:
        raise ValidationFailed.field("Last-Event-ID", "must be the id of an event of this stream")
    return Position(int(found[1]), int(found[2]))


def item_of(progress: Mapping[str, Any]) -> Item:
    """Return the progress of an import, an ImportProgress or an ImportView, as an item of the stream."""
    at = (datetime.fromisoformat(progress["updated_at"]) - _EPOCH) // timedelta(microseconds=1)
    position = Position(_STAGES[progress["status"]], at)
    shown = {name: progress[name] for name in ImportProgress.model_fields}
    return Item(position, "", encode(dump(shown).decode(), event_id=str(position)), progress["status"] in OVER)


def fetch(service: ImportingRpc, positions: Mapping[UUID, Position]) -> Found:
    """Ask a service for the progress of these imports. Raises ServiceError."""
    wanted = ImportLookup.parse({"import_ids": [str(import_id) for import_id in positions]})
    found = service.get_imports(wanted)["items"]
    return Found({UUID(one["id"]): [item_of(one)] for one in found}, is_complete=True)
