import eventlet
import pytest

from contracts.errors import Overloaded
from extensions.runtime.bulkhead import Bulkhead
from tests.stopwatch import Stopwatch


def acquire_in_background(bulkhead, count, timeout=5.0):
    """Start `count` greenlets that acquire a worker, and let each run until it waits."""
    greenlets = [eventlet.spawn(bulkhead.acquire, timeout) for _ in range(count)]
    eventlet.sleep(0)
    return greenlets


def refusal():
    return Overloaded("Nothing was done; try again shortly.", retry_after=1)


def bulkhead_with_durations(seconds, slots=4, max_requests=1000):
    """A bulkhead whose requests have taken this long so far."""
    bulkhead = Bulkhead(slots, max_requests, refusal)
    for _ in range(200):
        bulkhead.record_duration(seconds)
    return bulkhead


def test_a_free_slot_is_acquired_however_slow_requests_have_been():
    bulkhead = bulkhead_with_durations(60.0)
    for _ in range(4):
        bulkhead.acquire(1.0)
    with pytest.raises(Overloaded):
        bulkhead.acquire(1.0)


def test_the_queue_holds_as_many_requests_as_can_be_served_in_time():
    bulkhead = bulkhead_with_durations(1.0)
    acquire_in_background(bulkhead, 100)
    # Four run. Four more start each second, and the last one needs its own 1.5 seconds.
    assert bulkhead.in_flight == 4 + 4 * 3.5


def test_quick_requests_may_queue_up_to_the_limit():
    bulkhead = bulkhead_with_durations(0.001, max_requests=100)
    acquire_in_background(bulkhead, 150)
    assert bulkhead.in_flight == 100


def test_a_refusal_is_immediate_and_says_that_nothing_was_done():
    bulkhead = bulkhead_with_durations(1.0)
    acquire_in_background(bulkhead, 100)
    started = Stopwatch()
    with pytest.raises(Overloaded, match="Nothing was done") as refusal:
        bulkhead.acquire(5.0)
    assert started.seconds < 0.01
    assert (refusal.value.status, refusal.value.code, refusal.value.retry_after) == (503, "SERVICE_UNAVAILABLE", 1)


def test_a_waiting_request_gets_a_released_slot():
    bulkhead = bulkhead_with_durations(0.1, slots=1)
    bulkhead.acquire(5.0)
    (waiting,) = acquire_in_background(bulkhead, 1)
    assert not waiting.dead
    bulkhead.release()
    waiting.wait()
    bulkhead.release()
    assert bulkhead.in_flight == 0


def test_a_request_that_has_waited_too_long_to_be_served_in_time_is_refused():
    bulkhead = bulkhead_with_durations(0.1, slots=1)
    bulkhead.acquire(5.0)
    started = Stopwatch()
    with pytest.raises(Overloaded):
        bulkhead.acquire(0.3)
    assert started.wall > 0.1
    assert started.seconds < 0.25
    assert bulkhead.in_flight == 1


def test_a_request_that_is_killed_while_it_waits_is_not_counted_any_more():
    bulkhead = bulkhead_with_durations(0.1, slots=1)
    bulkhead.acquire(5.0)
    (waiting,) = acquire_in_background(bulkhead, 1)
    assert bulkhead.in_flight == 2
    waiting.kill()
    assert bulkhead.in_flight == 1
