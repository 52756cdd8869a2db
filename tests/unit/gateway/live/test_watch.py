"""Lists are asked for when their events pass, together, again until the event is in them, and now and then."""

import time
from datetime import UTC, datetime
from uuid import uuid4

import eventlet
import pytest

from contracts.errors import ServiceUnavailable
from contracts.users import Role
from extensions.http.streams.stream import Stream
from extensions.runtime.progress import Loop
from extensions.security.access_tokens import AccessToken
from gateway.live import watch as module
from gateway.live.watch import Found, Item, Watch, show
from tests.support import eventually

LONG_AGO = -1e9


def make_stream(position=0):
    now = datetime.now(UTC)
    stream = Stream("order", AccessToken(uuid4(), (Role.CUSTOMER,), now, now), 0.0, 0)
    stream.position = position
    return stream


class Lists:
    """The lists of a service that counts the calls."""

    def __init__(self):
        self.lists, self.calls, self.failures, self.is_complete = {}, [], 0, True

    def add(self, key, event_id):
        items = self.lists.setdefault(key, [])
        items.append(Item(len(items) + 1, event_id, f"<{event_id}>".encode()))

    def fetch(self, positions):
        self.calls.append(dict(positions))
        if self.failures:
            self.failures -= 1
            raise ServiceUnavailable
        items = {
            key: [one for one in self.lists.get(key, ()) if one.position > after] for key, after in positions.items()
        }
        return Found(items, self.is_complete)


@pytest.fixture
def lists():
    return Lists()


@pytest.fixture
def watch(lists):
    watch = Watch("orders", lists.fetch, 100)
    running = eventlet.spawn(watch.run, Loop("live.orders"))
    yield watch
    running.kill()


def settled(watch, lists):
    """Wait until every list was asked for once and nothing is due."""
    eventually(lambda: lists.calls and all(each.due > time.monotonic() + 5 for each in watch._lists.values()))
    calls = len(lists.calls)
    lists.calls.clear()
    return calls


def test_a_new_stream_gets_what_was_added_since_its_position(watch, lists):
    key, stream = uuid4(), make_stream(position=1)
    for name in "abc":
        lists.add(key, name)
    watch.add(key, stream)
    eventually(lambda: stream.position == 3)
    assert stream.take_first() == b"<b><c>"


def test_an_event_in_the_log_leads_to_a_call_and_to_all_streams_of_its_list(watch, lists):
    key, streams = uuid4(), [make_stream(), make_stream()]
    for stream in streams:
        watch.add(key, stream)
    settled(watch, lists)
    lists.add(key, "a")
    watch.expect(key, "a")
    watch.expect(uuid4(), "of an order that nobody looks at")
    watch.expect(None, "of no order")
    eventually(lambda: all(stream.position == 1 for stream in streams))
    assert [stream.take_first() for stream in streams] == [b"<a>", b"<a>"]
    assert lists.calls == [{key: 0}]


def test_an_event_that_is_not_recorded_yet_is_asked_for_again(watch, lists):
    key, stream = uuid4(), make_stream()
    watch.add(key, stream)
    settled(watch, lists)
    watch.expect(key, "a")
    eventually(lambda: len(lists.calls) >= 3)
    lists.add(key, "a")
    eventually(lambda: stream.position == 1)
    calls = len(lists.calls)
    eventlet.sleep(0.3)
    assert len(lists.calls) == calls


def test_an_event_that_is_never_recorded_is_given_up(watch, lists, monkeypatch):
    monkeypatch.setattr(module, "PAUSES", (0.01, 0.01))
    key = uuid4()
    watch.add(key, make_stream())
    settled(watch, lists)
    watch.expect(key, "never")
    eventually(lambda: not watch._lists[key].awaited)
    assert len(lists.calls) == 3
    assert watch._lists[key].due > time.monotonic() + 5


def test_many_lists_are_asked_for_in_one_call(watch, lists):
    keys = [uuid4() for _ in range(250)]
    for key in keys:
        watch.add(key, make_stream())
    assert settled(watch, lists) == 3
    for key in keys[:50]:
        lists.add(key, "a")
        watch.expect(key, "a")
    eventually(lambda: sum(len(call) for call in lists.calls) >= 50)
    assert len(lists.calls) == 1


def test_what_was_missed_is_found_by_the_re_check(watch, lists, monkeypatch):
    monkeypatch.setattr(module, "RECHECK_SECONDS", 0.1)
    key, stream = uuid4(), make_stream()
    watch.add(key, stream)
    eventually(lambda: lists.calls)
    lists.add(key, "a")  # no event in the log
    eventually(lambda: stream.position == 1)


def test_a_new_connection_to_the_log_leads_to_a_call(watch, lists):
    key, stream = uuid4(), make_stream()
    watch.add(key, stream)
    settled(watch, lists)
    lists.add(key, "a")
    watch.expect_all()
    eventually(lambda: stream.position == 1)


def test_streams_survive_a_service_that_fails(watch, lists):
    key, stream = uuid4(), make_stream()
    lists.failures = 2
    lists.add(key, "a")
    watch.add(key, stream)
    eventually(lambda: stream.position == 1)
    assert not stream.ended


def test_one_list_that_fails_delays_no_other(watch, lists, monkeypatch):
    monkeypatch.setattr(module, "GATHER_SECONDS", 0.001)
    bad, keys, fetch = uuid4(), [uuid4() for _ in range(20)], lists.fetch

    def fail(positions):
        if bad in positions:
            raise KeyError("wrong")
        return fetch(positions)

    watch._fetch = fail
    streams = [make_stream() for _ in keys]
    watch.add(bad, make_stream())
    for key, stream in zip(keys, streams, strict=True):
        lists.add(key, "a")
        watch.add(key, stream)
    eventually(lambda: all(stream.position == 1 for stream in streams))
    eventually(lambda: watch._lists[bad].due > time.monotonic() + 5)  # 0 while it is asked


def test_a_pause_before_the_next_try_is_not_cut_by_the_calls_for_other_lists(watch, lists, monkeypatch):
    monkeypatch.setattr(module, "PAUSES", (0.2,) * 7)
    slow, busy = uuid4(), uuid4()
    for key in (slow, busy):
        watch.add(key, make_stream())
    settled(watch, lists)
    watch.expect(slow, "slow")
    for number in range(10):
        lists.add(busy, str(number))
        watch.expect(busy, str(number))
        eventlet.sleep(0.04)
    assert sum(slow in call for call in lists.calls) <= 4


def test_an_incomplete_result_is_continued_at_once(watch, lists):
    key, stream = uuid4(), make_stream()
    lists.is_complete = False
    watch.add(key, stream)
    eventually(lambda: len(lists.calls) > 3)


def test_a_stream_that_is_added_during_a_call_is_asked_for_afterwards(lists):
    key, first, second = uuid4(), make_stream(), make_stream()

    def fetch(positions):
        if not lists.calls:
            watch.add(key, second)
        return lists.fetch(positions)

    watch = Watch("orders", fetch, 100)
    watch.add(key, first)
    watch._ask()
    assert watch._lists[key].due <= time.monotonic()


def test_nothing_is_kept_of_a_stream_that_has_ended(watch, lists):
    key, streams = uuid4(), [make_stream(), make_stream()]
    for stream in streams:
        watch.add(key, stream)
    streams[0].end("client")
    assert list(watch._lists) == [key]
    streams[1].end("client")
    assert watch._lists == {}
    watch.expect(key, "a")


def test_an_item_is_sent_once():
    stream, items = make_stream(), [Item(1, "a", b"a"), Item(2, "b", b"b")]
    show(stream, items[:1])
    show(stream, items)
    show(stream, items)
    assert stream.take_first() == b"ab"
