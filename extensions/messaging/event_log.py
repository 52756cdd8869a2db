"""The event log: a stream queue with every event that the services have published, for administrators.

A stream keeps what was read, and gives each message an offset that never changes. So the offset is a durable position
for readers. extensions/messaging/event_log_reader.py reads it.

The log is not bound to the exchange `events`: the broker returns a `mandatory` event only if no queue at all takes it,
and a log that takes every event would hide the missing queue of a consumer. So the relay writes one more message for
each batch of events: a line of JSON for each event
(docs/architecture/decisions/0020-live-streams-and-the-event-log.md).
"""

import json
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC
from typing import Any

from contracts.events import EVENTS, is_logged
from contracts.ids import new_id
from extensions.messaging.publisher import Outcome, OutgoingMessage
from extensions.messaging.topology import LOGGED_EVENTS

log = logging.getLogger(__name__)

# A message of the log has at most about this size, except for a single large event.
MESSAGE_BYTES = 128 * 1024
# After a log that did not confirm, events are published without it for this time: they must not wait for it again.
PAUSE_SECONDS = 60.0

_text = json.JSONEncoder(ensure_ascii=False).encode


class EventLogWriter:
    """Makes the log messages of one service's relay."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._paused_until = 0.0

    def messages(self, rows: Iterable[Any]) -> list[OutgoingMessage]:
        """Return the messages that log these outbox rows. An event that the broker refused before is logged already."""
        if time.monotonic() < self._paused_until:
            return []
        lines = [line for row in rows if not row.attempts and (line := entry_of(row, self._service))]
        return [
            OutgoingMessage(
                exchange=LOGGED_EVENTS,
                routing_key=self._service,
                body=body,
                message_id=str(new_id()),
                mandatory=False,
                app_id=self._service,
            )
            for body in _bodies(lines)
        ]

    def record(self, messages: Sequence[OutgoingMessage], outcome: Outcome) -> bool:
        """Take the outcome of these messages. Returns whether the logged events are done with.

        They are not if it is unknown whether the log has them: they are published and logged again, and consumers drop
        the second one. A log that refuses a message never holds up events.
        """
        ids = {message.message_id for message in messages}
        if ids & outcome.refused.keys():
            log.warning("events were published without being logged: the broker refused a message of the event log")
        if not ids & outcome.unknown:
            return True
        log.warning("the event log did not confirm; for %.0f s events are not logged", PAUSE_SECONDS)
        self._paused_until = time.monotonic() + PAUSE_SECONDS
        return False


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
    at = row.created_at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
    headers = row.headers
    return (
        f'{{"event":"{row.event_type}","event_id":"{row.message_id}","service":"{service}","at":"{at}"'
        f',"order_id":{_text(row.correlation_id if "order_id" in event.model_fields else None)}'
        f',"request_id":{_text(headers.get("x-request-id"))},"causation_id":{_text(headers.get("causation-id"))}'
        f',"data":{body}}}'
    )


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
