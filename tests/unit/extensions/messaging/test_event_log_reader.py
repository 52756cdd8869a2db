"""What the reader keeps in memory, and when it closes its connection."""

from types import SimpleNamespace

import eventlet
import pytest

from contracts.ids import new_id
from extensions.messaging import event_log_reader as module
from extensions.messaging.event_log_reader import START, EventLogReader, Position
from tests.support import eventually
from tests.unit.extensions.messaging.test_event_log import entry_of, received, row


@pytest.fixture
def reader(monkeypatch):
    """A reader whose connection is a fake."""
    reader = EventLogReader()
    reader.container = SimpleNamespace(spawn_managed_thread=lambda *_, **__: SimpleNamespace(kill=lambda: None))
    reader.closed = []
    monkeypatch.setattr(reader, "_open", lambda: _open(reader))
    return reader


def _open(reader):
    reader._connection = SimpleNamespace(close=lambda: reader.closed.append(True))
    reader._reader = SimpleNamespace(kill=lambda: None)


def take(reader, offset, count=1):
    lines = [entry_of(row(message_id=new_id()), "orders") for _ in range(count)]
    reader._take(received("\n".join(lines), offset=offset))


def positions(entries):
    return [str(entry.position) for entry in entries]


def test_what_is_in_memory_needs_no_broker(reader):
    assert reader.recent_after(START) is None
    for offset in (5, 6, 7):
        take(reader, offset, count=2)
    assert positions(reader.recent_after(Position(6, 0))) == ["6-1", "7-0", "7-1"]
    assert reader.recent_after(Position(7, 1)) == []
    assert reader.recent_after(Position(4, 9)) is None


def test_a_message_that_comes_again_is_dropped(reader):
    seen = []
    reader.subscribe(seen.extend)
    for offset in (5, 6, 5, 6, 7):
        take(reader, offset)
    assert positions(seen) == ["5-0", "6-0", "7-0"]


@pytest.mark.parametrize("arrives", [False, True])
def test_a_count_of_no_messages_means_nothing_once_one_has_arrived(reader, arrives):
    """The count is old, or the message came between the subscription and the response with the count."""

    def declare(_queue, passive):
        assert passive
        if arrives:
            take(reader, 5)
        return SimpleNamespace(message_count=0)

    reader._end_if_empty(SimpleNamespace(queue_declare=declare))
    assert reader.last == (Position(5, 0) if arrives else START)


def test_the_memory_is_bounded(reader, monkeypatch):
    monkeypatch.setattr(module, "MAX_RECENT", 3)
    for offset in range(10):
        take(reader, offset)
    assert positions(reader._recent) == ["7-0", "8-0", "9-0"]
    monkeypatch.setattr(module, "MAX_RECENT_BYTES", 1)
    take(reader, 10)
    assert (len(reader._recent), reader._recent_bytes) == (0, 0)


def test_the_connection_closes_some_time_after_the_last_user(reader, monkeypatch):
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.05)
    reader.enter()
    take(reader, 1)
    reader.leave()
    reader.enter()  # in time
    eventlet.sleep(0.1)
    assert not reader.closed
    assert reader.last == Position(1, 0)
    reader.leave()
    eventually(lambda: reader.closed)
    assert (reader.last, len(reader._recent)) == (None, 0)


@pytest.mark.parametrize(("first", "gaps"), [(6, []), (9, [("6-0", "9-0")])])
def test_deleted_entries_are_a_gap(reader, monkeypatch, first, gaps):
    """The log begins at `first`; the client has seen 6-0."""
    take(reader, 11)
    lines = [entry_of(row(message_id=new_id()), "orders") for _ in range(2)]
    waiting = [received("\n".join(lines), offset=offset) for offset in range(first, 12)]
    for message in waiting:
        message.delivery_info["delivery_tag"] = 1
    taken = {}
    channel = SimpleNamespace(
        basic_qos=lambda *_: None,
        basic_ack=lambda *_: None,
        basic_consume=lambda _queue, callback, arguments: taken.update(callback=callback, **arguments),
    )
    drain = lambda timeout: taken["callback"](waiting.pop(0))  # noqa: ARG005, E731
    connection = SimpleNamespace(channel=lambda: channel, drain_events=drain, close=lambda: None, collect=lambda: None)
    monkeypatch.setattr(module, "connect", lambda *_, **__: connection)
    reader.container = SimpleNamespace(service_name="gateway")
    found = list(reader.read_after(Position(6, 0)))
    assert taken["x-stream-offset"] == 6
    assert [(str(one.after), str(one.before)) for one in found if isinstance(one, module.Gap)] == gaps
    read = [position for one in found if isinstance(one, list) for position in positions(one)]
    assert read[0] == ("6-1" if not gaps else "9-0")
    assert read[-1] == "11-1"
