"""Concurrent misses share one load, and nobody gets what was read before their call."""

import eventlet
import pytest
from eventlet.event import Event as Signal

from contracts.errors import NotFound
from extensions.cache.single_flight import SingleFlight


class Source:
    """A cache and a slow database behind it."""

    def __init__(self):
        self.cached, self.stored, self.loads, self.gate = None, "first", 0, Signal()

    def read(self):
        return self.cached

    def load(self):
        self.loads += 1
        found = self.stored
        self.gate.wait()
        if isinstance(found, Exception):
            raise found
        self.cached = found
        return found


@pytest.fixture
def source():
    return Source()


@pytest.fixture
def flights():
    return SingleFlight()


def start(flights, source, key="key"):
    thread = eventlet.spawn(flights.get, key, source.read, source.load)
    eventlet.sleep(0)
    return thread


def test_a_stampede_loads_once(flights, source):
    callers = [eventlet.spawn(flights.get, "key", source.read, source.load) for _ in range(1000)]
    eventlet.sleep(0.01)
    source.gate.send(None)
    assert {caller.wait() for caller in callers} == {"first"}
    assert source.loads == 1
    assert not flights._next
    assert not flights._running


def test_callers_during_a_load_find_what_it_stored(flights, source):
    first = start(flights, source)
    eventlet.sleep(0.01)
    later = [start(flights, source) for _ in range(100)]
    source.gate.send(None)
    assert {caller.wait() for caller in [first, *later]} == {"first"}
    assert source.loads == 1


def test_a_caller_gets_nothing_that_was_read_before_its_call(flights, source):
    first = start(flights, source)
    eventlet.sleep(0.01)
    source.stored = "second"  # committed, and the cache is invalidated
    later = start(flights, source)
    source.gate.send(None)
    first.wait()
    source.cached = None  # `store` has refused the old value
    assert later.wait() == "second"


def test_keys_do_not_wait_for_each_other(flights, source):
    waiting = start(flights, source)
    assert flights.get("other", lambda: None, lambda: "at once") == "at once"
    source.gate.send(None)
    waiting.wait()


def test_all_callers_get_the_error(flights, source):
    source.stored = NotFound()
    callers = [eventlet.spawn(flights.get, "key", source.read, source.load) for _ in range(10)]
    eventlet.sleep(0.01)
    source.gate.send(None)
    for caller in callers:
        with pytest.raises(NotFound):
            caller.wait()
    assert source.loads == 1


def test_a_killed_caller_is_replaced(flights, source):
    callers = [eventlet.spawn(flights.get, "key", source.read, source.load) for _ in range(3)]
    eventlet.sleep(0.01)
    callers[0].kill()
    eventlet.sleep(0.01)
    source.gate.send(None)
    assert [caller.wait() for caller in callers[1:]] == ["first", "first"]
    assert source.loads == 2
