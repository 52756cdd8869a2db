"""What is asked for at the same moment is done together, and nobody pays for another one's fate."""

import time

import eventlet
import pytest
from eventlet.event import Event
from greenlet import GreenletExit

from contracts.errors import InvalidState, ServiceUnavailable, UpstreamTimeout
from extensions.idempotency.batcher import AT_MOST, Batcher
from extensions.observability.traces import Trace, use_trace


class Door:
    """A run that waits, and remembers who was in it."""

    def __init__(self):
        self.batches, self.opened = [], Event()

    def run(self, items):
        self.batches.append(items)
        self.opened.wait()
        return [item * 10 for item in items]

    def open(self):
        self.opened.send()


@pytest.fixture
def door():
    with eventlet.Timeout(5):
        yield Door()


@pytest.fixture
def together():
    return Batcher()


def ask(together, door, item, budget=None):
    """Ask in a greenlet of its own; returns it when it waits."""

    def call():
        with use_trace(Trace(deadline=None if budget is None else time.monotonic() + budget)):
            return together(item, door.run)

    asked = eventlet.spawn(call)
    eventlet.sleep(0)
    return asked


def test_who_asks_alone_waits_for_nobody(together, door):
    door.open()
    assert [together(1, door.run), together(2, door.run)] == [10, 20]
    assert door.batches == [[1], [2]]


def test_who_comes_while_one_is_under_way_is_done_with_the_others(together, door):
    asked = [ask(together, door, number) for number in range(5)]
    assert door.batches == [[0]]
    door.open()
    assert [one.wait() for one in asked] == [0, 10, 20, 30, 40]
    assert door.batches == [[0], [1, 2, 3, 4]]


def test_a_run_that_takes_long_keeps_nobody_for_long(together, door, monkeypatch):
    monkeypatch.setattr("extensions.idempotency.batcher.PATIENCE_SECONDS", 0.05)
    hangs, opened = Door(), Door()
    opened.open()
    hanging = ask(together, hangs, 0)
    asked = [ask(together, opened, number) for number in range(1, 5)]
    assert [one.wait() for one in asked] == [10, 20, 30, 40]
    assert opened.batches == [[1, 2, 3, 4]]
    late = [ask(together, door, number) for number in (5, 6)]  # who leads now is the only one
    hangs.open()
    assert hanging.wait() == 0
    assert door.batches == [[5]]
    door.open()
    assert [one.wait() for one in late] == [50, 60]
    assert door.batches == [[5], [6]]


def test_a_batch_is_bounded(together, door):
    asked = [ask(together, door, number) for number in range(2 * AT_MOST + 2)]
    door.open()
    assert [one.wait() for one in asked] == [10 * number for number in range(2 * AT_MOST + 2)]
    assert [len(batch) for batch in door.batches] == [1, AT_MOST, AT_MOST, 1]


def test_who_is_killed_while_waiting_is_taken_out(together, door):
    asked = [ask(together, door, number) for number in range(4)]
    asked[2].kill()
    door.open()
    assert [asked[number].wait() for number in (0, 1, 3)] == [0, 10, 30]
    assert door.batches == [[0], [1, 3]]


def test_who_began_a_run_can_be_killed_and_harms_nobody(together, door):
    asked = [ask(together, door, number) for number in range(3)]
    asked[0].kill()
    door.open()
    assert [one.wait() for one in asked[1:]] == [10, 20]
    assert door.batches == [[0], [1, 2]]
    assert together(7, door.run) == 70


def test_whose_time_is_over_before_the_run_is_told_that_nothing_was_done(together, door):
    ask(together, door, 0)
    late = ask(together, door, 1, budget=0.05)
    with pytest.raises(ServiceUnavailable) as told:
        late.wait()
    assert told.value.retry_after == 1
    door.open()
    assert together(2, door.run) == 20
    assert [1] not in door.batches


def test_whose_time_is_over_in_the_run_is_told_that_nobody_knows(together, door):
    late = ask(together, door, 0, budget=0.05)
    with pytest.raises(UpstreamTimeout):
        late.wait()
    door.open()


def test_a_timeout_of_the_waiting_one_is_its_own(together, door):
    first = ask(together, door, 0)

    def impatient():
        with eventlet.Timeout(0.05):
            together(1, door.run)

    with pytest.raises(eventlet.Timeout):
        eventlet.spawn(impatient).wait()
    door.open()
    assert first.wait() == 0
    assert door.batches == [[0]]


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit, GreenletExit, eventlet.Timeout])
def test_a_run_that_fails_fails_for_all_of_it_and_for_nobody_after(together, door, error):
    class Broken(Door):
        def run(self, items):
            super().run(items)
            raise error

    broken = Broken()
    asked = [ask(together, broken, number) for number in range(3)]
    broken.open()
    for one in asked:
        with pytest.raises(error):
            one.wait()
    door.open()
    assert together(1, door.run) == 10


def test_an_exception_among_the_outcomes_is_raised_by_whose_it_is(together, door):
    door.open()
    assert together(1, door.run) == 10
    with pytest.raises(InvalidState):
        together(1, lambda _: [InvalidState()])


@pytest.mark.parametrize("outcomes", [[], [1, 2]])
def test_a_run_that_forgets_somebody_strands_nobody(together, outcomes):
    with eventlet.Timeout(1), pytest.raises(ValueError, match="zip"):
        together(1, lambda _: outcomes)


def test_a_run_whose_greenlet_is_killed_strands_nobody(together, door):
    running = []

    class Killed(BaseException):
        """What nobody expects."""

    class Known(Door):
        def run(self, items):
            running.append(eventlet.getcurrent())
            return super().run(items)

    known = Known()
    asked = [ask(together, known, number) for number in range(3)]
    eventlet.kill(running[0], Killed)
    with pytest.raises(UpstreamTimeout):
        asked[0].wait()
    known.open()
    assert [one.wait() for one in asked[1:]] == [10, 20]
