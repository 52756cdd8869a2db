"""Slots and rests: who waits for a worker, and who is told at once that it would be in vain."""

import time

import eventlet
import pytest

from contracts.errors import Overloaded, ServiceUnavailable
from extensions.http.limits import overload
from extensions.http.limits.overload import Bulkhead, CircuitBreaker, SharedResponse
from tests.stopwatch import Stopwatch


def taken_in_background(slots, count, seconds=5.0):
    """Take `count` slots, each in a greenlet of its own, and let them get as far as they can."""
    takers = [eventlet.spawn(slots.take, seconds) for _ in range(count)]
    eventlet.sleep(0)
    return takers


def slots_in_which_one_takes(seconds, workers=4, max_requests=1000):
    slots = Bulkhead(workers, max_requests)
    for _ in range(200):
        slots.note(seconds)
    return slots


def test_who_finds_a_free_worker_never_waits_however_slow_requests_have_been():
    slots = slots_in_which_one_takes(60.0)
    for _ in range(4):
        slots.take(1.0)
    with pytest.raises(Overloaded):
        slots.take(1.0)


def test_the_queue_is_as_long_as_can_be_answered_in_time():
    slots = slots_in_which_one_takes(1.0)
    taken_in_background(slots, 100)
    # Four at work; of those who wait, four more a second, and the last needs its own time too.
    assert slots._in_flight == 4 + 4 * 3.5


def test_quick_requests_may_queue_up_to_the_limit():
    slots = slots_in_which_one_takes(0.001, max_requests=100)
    taken_in_background(slots, 150)
    assert slots._in_flight == 100


def test_a_refusal_is_at_once_and_says_that_nothing_was_done():
    slots = slots_in_which_one_takes(1.0)
    taken_in_background(slots, 100)
    began = Stopwatch()
    with pytest.raises(Overloaded, match="Nothing was done") as refusal:
        slots.take(5.0)
    assert began.seconds < 0.01
    assert (refusal.value.status, refusal.value.code, refusal.value.retry_after) == (503, "SERVICE_UNAVAILABLE", 1)


def test_who_waits_gets_the_place_of_who_leaves():
    slots = slots_in_which_one_takes(0.1, workers=1)
    slots.take(5.0)
    (waiting,) = taken_in_background(slots, 1)
    assert not waiting.dead
    slots.give_back()
    waiting.wait()
    slots.give_back()
    assert slots._in_flight == 0


def test_who_has_waited_too_long_to_be_answered_in_time_leaves_undone():
    slots = slots_in_which_one_takes(0.1, workers=1)
    slots.take(5.0)
    began = Stopwatch()
    with pytest.raises(Overloaded):
        slots.take(0.3)
    assert began.wall > 0.1
    assert began.seconds < 0.25
    assert slots._in_flight == 1


def test_a_service_that_is_overloaded_is_left_alone_for_as_long_as_it_says():
    rest = CircuitBreaker()
    rest.check()
    rest.begin(Overloaded("Too many orders.", retry_after=1))
    with pytest.raises(Overloaded, match="Too many orders") as refusal:
        rest.check()
    assert refusal.value.retry_after == 1
    rest._until = time.monotonic()
    rest.check()


def test_soon_after_an_overload_nobody_is_queued():
    rest, slots = CircuitBreaker(), slots_in_which_one_takes(0.1, workers=1)
    assert rest.patience(5.0) == 5.0
    rest.begin(Overloaded("Too many orders.", retry_after=1))
    rest._until = time.monotonic()
    slots.take(rest.patience(5.0))  # a free worker is no queue
    with pytest.raises(Overloaded):
        slots.take(rest.patience(5.0))
    rest._no_queue_until = time.monotonic()
    assert rest.patience(5.0) == 5.0


class TestKept:
    @pytest.fixture
    def begun(self):
        return []

    def test_all_who_ask_meanwhile_wait_for_the_same(self, begun):
        kept = SharedResponse(0.05)
        outcomes = {kept.outcome(begun.append) for _ in range(100)}
        assert list(outcomes) == begun
        eventlet.sleep(0.1)  # however long it takes
        assert kept.outcome(begun.append) is begun[0]
        begun[0].send("answer")
        assert kept.outcome(begun.append) is begun[1]

    def test_an_answer_is_kept_for_its_time(self, begun):
        kept = SharedResponse(0.05)
        kept.outcome(begun.append).send("answer")
        assert kept.outcome(begun.append).wait() == "answer"
        eventlet.sleep(0.06)
        assert not kept.outcome(begun.append).ready()

    def test_a_refusal_is_not_kept_for_ever(self, begun, monkeypatch):
        monkeypatch.setattr(overload, "REFUSAL_SECONDS", 0.05)
        kept = SharedResponse(float("inf"))
        kept.outcome(begun.append).send(ServiceUnavailable())
        assert len({kept.outcome(begun.append) for _ in range(10)}) == 1
        eventlet.sleep(0.06)
        kept.outcome(begun.append).send("answer")
        eventlet.sleep(0.06)
        assert kept.outcome(begun.append).wait() == "answer"
        assert len(begun) == 2

    def test_what_could_not_be_begun_is_refused_to_all(self):
        def fail(_outcome):
            raise ServiceUnavailable

        assert isinstance(SharedResponse(1.0).outcome(fail).wait(), ServiceUnavailable)
