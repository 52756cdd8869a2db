"""The inbox: the messages that a service has handled, so that a second delivery changes nothing."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Text, Uuid, text
from sqlalchemy.orm import Session

from contracts.base import Received
from contracts.events import handler_name

# Arrays keep the text the same for any number of messages, so that it is compiled once.
INSERT = text(
    "INSERT INTO inbox (message_id, handler)"
    " SELECT * FROM unnest(CAST(:message_ids AS uuid[]), CAST(:handlers AS text[]))"
    " ON CONFLICT DO NOTHING RETURNING message_id, handler"
).columns(message_id=Uuid, handler=Text)


def add_new(session: Session, events: Sequence[Received[Any]]) -> list[Received[Any]]:
    """Insert `events` into the inbox and return those that were not in it yet, in their order, each once.

    One statement for all of them. Their handling belongs into the same transaction.
    """
    entries = {(received.message_id, handler_name(type(received.event))): received for received in events}
    # Sorted, so that two instances that insert the same messages wait for each other and do not deadlock.
    message_ids, handlers = zip(*sorted(entries), strict=True)
    inserted = session.execute(INSERT, {"message_ids": [*message_ids], "handlers": [*handlers]})
    new = {tuple(row) for row in inserted}
    return [received for entry, received in entries.items() if entry in new]
