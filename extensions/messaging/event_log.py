"""The event log: a stream queue with every event that the services have published, for administrators.

A stream keeps what was read, and gives each message an offset that never changes. So the offset is a durable position
for readers. extensions/messaging/event_log_reader.py reads it.

The log is not bound to the exchange `events`: the broker returns a `mandatory` event only if no queue at all takes it,
and a log that takes every event would hide the missing queue of a consumer. So the relay writes one more message for
each batch of events: a line of JSON for each event
(docs/architecture/decisions/0020-live-streams-and-the-event-log.md).

What the log does not confirm is stored in the table unlogged_events, in the transaction that deletes the events from
the outbox, and extensions/messaging/event_log_catch_up.py writes it later.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from contracts.events import EVENTS, is_logged
from contracts.ids import new_id
from extensions.messaging.publisher import Outcome, OutgoingMessage
from extensions.messaging.topology import LOGGED_EVENTS

# A message of the log has at most about this size, except for a single large event.
MESSAGE_BYTES = 128 * 1024
GAP = "gap"
"""The name of an entry that stands for events that the log will never have."""

_text = json.JSONEncoder(ensure_ascii=False).encode


class EventLogWriter:
    """Makes the log messages of one service's relay."""

    def __init__(self, service: str) -> None:
        self._service = service
        self.is_behind = False
        """True after a message that the log did not confirm, until the log has caught up. Then no event is published
        together with a message of the log: events must not wait for it."""

    def messages(self, rows: Iterable[Any]) -> list[OutgoingMessage]:
        """Return the messages that log these outbox rows. An event that the broker refused before is logged already."""
        if self.is_behind:
            return []
        return [message_of(body, self._service) for body in self._bodies(rows)]

    def unlogged(self, messages: Sequence[OutgoingMessage], outcome: Outcome, rows: Iterable[Any]) -> list[str]:
        """Return the bodies of messages that are still to be written. `rows` are those that are not logged again.

        They are none if the log has confirmed all of `messages`. An event may be logged twice.
        """
        ids = {message.message_id for message in messages}
        if ids and ids <= outcome.confirmed:
            return []
        if ids & (outcome.unknown | outcome.refused.keys()):
            self.is_behind = True
        return list(self._bodies(rows))

    def _bodies(self, rows: Iterable[Any]) -> Iterator[str]:
        return _bodies(line for row in rows if not row.attempts and (line := entry_of(row, self._service)))


def message_of(body: str, service: str) -> OutgoingMessage:
    """Return a message of the log."""
    return OutgoingMessage(
        exchange=LOGGED_EVENTS,
        routing_key=service,
        body=body,
        message_id=str(new_id()),
        app_id=service,
        is_optional=True,
    )


def entry_of(row: Any, service: str) -> str:
    """Return the log entry of an outbox row as a line of JSON, "" for an event that is not logged."""
    event = EVENTS.get(row.event_type)
    if event is None or not is_logged(event):
        return ""
    body = row.body
    if event.private_fields:
        try:
            fields = json.loads(body)
            body = _text({name: value for name, value in fields.items() if name not in event.private_fields})
        except (ValueError, AttributeError):  # consumers refuse it, too
            return ""
    at = _utc(row.created_at)
    headers = row.headers
    return (
        f'{{"event":"{row.event_type}","event_id":"{row.message_id}","service":"{service}","at":"{at}"'
        f',"order_id":{_text(row.correlation_id if "order_id" in event.model_fields else None)}'
        f',"request_id":{_text(headers.get("x-request-id"))},"causation_id":{_text(headers.get("causation-id"))}'
        f',"data":{body}}}'
    )


def gap_of(service: str, since: datetime, until: datetime) -> str:
    """Return the entry that says that the log lacks events of a service which it published in this time."""
    data = {"service": service, "since": _utc(since), "until": _utc(until)}
    entry = {"event": GAP, "event_id": str(new_id()), "service": service, "at": _utc(until), "order_id": None}
    return _text(entry | {"request_id": None, "causation_id": None, "data": data})


def _utc(at: datetime) -> str:
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _bodies(lines: Iterable[str]) -> Iterator[str]:
    """Join lines to bodies of at most MESSAGE_BYTES characters; a longer line is a body of its own."""
    body: list[str] = []
    size = 0
    for line in lines:
        if body and size + len(line) > MESSAGE_BYTES:
            yield "\n".join(body)
            body, size = [], 0
        body.append(line)
        size += len(line)
    if body:
        yield "\n".join(body)
