"""Concurrent calls are batched; a call that is cancelled, times out or fails does not affect the others."""

import time

import eventlet
import pytest
from eventlet.event import Event
from greenlet import GreenletExit

from contracts.errors import InvalidState, ServiceUnavailable, UpstreamTimeout
from extensions.idempotency.batcher import MAX_BATCH, Batcher
from extensions.observability.traces import Trace, use_trace


class BlockedRun:
    """A run that blocks until it is opened, and records its batches."""

    def __init__(self):
        self.batches, self.opened = [], Event()

    def run(self, items):
        self.batches.append(items)
        self.opened.wait()
        return [item * 10 for item in items]

    def open(self):
        self.opened.send()


@pytest.fixture
def blocked():
    with eventlet.Timeout(5):
        yield BlockedRun()


@pytest.fixture
def batcher():
    return Batcher()


def ask(batcher, blocked, item, budget=None):
    """Call the batcher in a new greenlet; returns the greenlet once it waits."""

    def call():
        with use_trace(Trace(deadline=None if budget is None else time.monotonic() + budget)):
            return batcher(item, blocked.run)

    asked = eventlet.spawn(call)
    eventlet.sleep(0)
    return asked


def test_a_single_caller_runs_immediately(batcher, blocked):
    blocked.open()
    assert [batcher(1, blocked.run), batcher(2, blocked.run)] == [10, 20]
    assert blocked.batches == [[1], [2]]


def test_calls_that_arrive_during_a_batch_form_the_next_batch(batcher, blocked):
    asked = [ask(batcher, blocked, number) for number in range(5)]
    assert blocked.batches == [[0]]
    blocked.open()
    assert [one.wait() for one in asked] == [0, 10, 20, 30, 40]
    assert blocked.batches == [[0], [1, 2, 3, 4]]


def test_a_slow_batch_delays_the_next_one_only_for_a_moment(batcher, blocked, monkeypatch):
    monkeypatch.setattr("extensions.idempotency.batcher.MAX_DELAY_SECONDS", 0.05)
    hangs, opened = BlockedRun(), BlockedRun()
    opened.open()
    hanging = ask(batcher, hangs, 0)
    asked = [ask(batcher, opened, number) for number in range(1, 5)]
    assert [one.wait() for one in asked] == [10, 20, 30, 40]
    assert opened.batches == [[1, 2, 3, 4]]
    late = [ask(batcher, blocked, number) for number in (5, 6)]  # the new leader is the only one
    hangs.open()
    assert hanging.wait() == 0
    assert blocked.batches == [[5]]
    blocked.open()
    assert [one.wait() for one in late] == [50, 60]
    assert blocked.batches == [[5], [6]]


def test_a_batch_is_bounded(batcher, blocked):
    asked = [ask(batcher, blocked, number) for number in range(2 * MAX_BATCH + 2)]
    blocked.open()
    assert [one.wait() for one in asked] == [10 * number for number in range(2 * MAX_BATCH + 2)]
    assert [len(batch) for batch in blocked.batches] == [1, MAX_BATCH, MAX_BATCH, 1]


def test_a_cancelled_waiter_is_removed_from_the_batch(batcher, blocked):
    asked = [ask(batcher, blocked, number) for number in range(4)]
    asked[2].kill()
    blocked.open()
    assert [asked[number].wait() for number in (0, 1, 3)] == [0, 10, 30]
    assert blocked.batches == [[0], [1, 3]]


def test_the_caller_that_started_a_batch_can_be_cancelled_without_effect_on_the_others(batcher, blocked):
    asked = [ask(batcher, blocked, number) for number in range(3)]
    asked[0].kill()
    blocked.open()
    assert [one.wait() for one in asked[1:]] == [10, 20]
    assert blocked.batches == [[0], [1, 2]]
    assert batcher(7, blocked.run) == 70


def test_a_deadline_before_the_batch_starts_means_that_nothing_was_done(batcher, blocked):
    ask(batcher, blocked, 0)
    late = ask(batcher, blocked, 1, budget=0.05)
    with pytest.raises(ServiceUnavailable) as refusal:
        late.wait()
    assert refusal.value.retry_after == 1
    blocked.open()
    assert batcher(2, blocked.run) == 20
    assert [1] not in blocked.batches


def test_a_deadline_during_the_batch_means_that_the_outcome_is_unknown(batcher, blocked):
    late = ask(batcher, blocked, 0, budget=0.05)
    with pytest.raises(UpstreamTimeout):
        late.wait()
    blocked.open()


def test_a_timeout_of_one_waiter_does_not_affect_the_others(batcher, blocked):
    first = ask(batcher, blocked, 0)

    def with_timeout():
        with eventlet.Timeout(0.05):
            batcher(1, blocked.run)

    with pytest.raises(eventlet.Timeout):
        eventlet.spawn(with_timeout).wait()
    blocked.open()
    assert first.wait() == 0
    assert blocked.batches == [[0]]


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit, GreenletExit, eventlet.Timeout])
def test_a_failing_batch_fails_for_all_its_calls_and_for_no_later_one(batcher, blocked, error):
    class Broken(BlockedRun):
        def run(self, items):
            super().run(items)
            raise error

    broken = Broken()
    asked = [ask(batcher, broken, number) for number in range(3)]
    broken.open()
    for one in asked:
        with pytest.raises(error):
            one.wait()
    blocked.open()
    assert batcher(1, blocked.run) == 10


def test_an_exception_among_the_outcomes_is_raised_to_its_caller_only(batcher, blocked):
    blocked.open()
    assert batcher(1, blocked.run) == 10
    with pytest.raises(InvalidState):
        batcher(1, lambda _: [InvalidState()])


@pytest.mark.parametrize("outcomes", [[], [1, 2]])
def test_a_run_with_a_wrong_number_of_outcomes_fails_and_blocks_no_caller(batcher, outcomes):
    with eventlet.Timeout(1), pytest.raises(ValueError, match="zip"):
        batcher(1, lambda _: outcomes)


def test_a_killed_batch_blocks_no_caller(batcher, blocked):
    running = []

    class Killed(BaseException):
        """An exception that no code expects."""

    class KillableRun(BlockedRun):
        def run(self, items):
            running.append(eventlet.getcurrent())
            return super().run(items)

    killable = KillableRun()
    asked = [ask(batcher, killable, number) for number in range(3)]
    eventlet.kill(running[0], Killed)
    with pytest.raises(UpstreamTimeout):
        asked[0].wait()
    killable.open()
    assert [one.wait() for one in asked[1:]] == [10, 20]
