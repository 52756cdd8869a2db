"""The stream of all events: where it continues, and what it says about events that are gone."""

import json
from datetime import UTC, datetime
from types import SimpleNamespace

import eventlet
import pytest

from contracts.ids import new_id
from extensions.messaging.event_log import gap_of
from extensions.messaging.event_log_reader import LogEntry, Position, entries_of
from gateway.live import events
from gateway.live.events import EventFeed
from tests.support import eventually
from tests.unit.extensions.messaging.test_event_log import received
from tests.unit.gateway.live.test_watch import make_stream


def entry(offset):
    return LogEntry(Position(offset, 0), "order.created", str(new_id()), None, f'{{"offset":{offset}}}')


@pytest.fixture
def reader():
    """A live reader that has read up to 5-0, of a log that ends at 9-0."""
    return SimpleNamespace(
        last=Position(5, 0),
        await_position=lambda _seconds: Position(5, 0),
        recent_after=lambda after: [one for one in map(entry, range(5, 6)) if one.position > after],
        read_after=lambda _after: iter(()),
        exists=lambda position: position.offset <= 9,
    )


@pytest.fixture
def feed(reader):
    return EventFeed(reader, lambda run, **_: eventlet.spawn(run))


def shown(stream):
    """The names, ids and data of the events in a stream."""
    found = []
    for text in stream.take_first().decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in text.split("\n"))
        found.append((fields.get("event"), fields.get("id"), fields.get("data") and json.loads(fields["data"])))
    return found


def test_a_client_may_know_more_than_the_live_reader(feed):
    """The broker sends the messages of the last chunk one after the other: there is no gap, and nothing comes twice."""
    stream = make_stream()
    feed.add(stream, Position(7, 0))
    eventually(lambda: stream in feed._live)
    for offset in range(6, 10):
        feed.on_entries([entry(offset)])
    assert [(name, event_id) for name, event_id, _ in shown(stream)] == [(None, "8-0"), (None, "9-0")]


def test_the_same_in_one_message(feed):
    stream = make_stream()
    feed.add(stream, Position(7, 0))
    eventually(lambda: stream in feed._live)
    feed.on_entries([entry(offset) for offset in range(6, 10)])
    assert [event_id for _, event_id, _ in shown(stream)] == ["8-0", "9-0"]


def test_a_position_that_the_log_does_not_have_is_a_gap(feed):
    stream = make_stream()
    feed.add(stream, Position(10, 3))
    eventually(lambda: stream in feed._live)
    assert shown(stream) == [("gap", None, {"after": "10-3", "before": "5-0"}), (None, "5-0", None)]


def test_events_that_the_log_never_got_are_a_gap(feed):
    at = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
    (lost,) = entries_of(received(gap_of("orders", at, at)))
    data = {"service": "orders", "since": "2026-11-22T09:30:00.000000Z", "until": "2026-11-22T09:30:00.000000Z"}
    stream = make_stream()
    stream.send(events.item_of(lost))
    assert shown(stream) == [("gap", "7-0", data)]
