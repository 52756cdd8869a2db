"""The circuit breaker of the work items: when it opens, and what it permits then."""

import pytest

from extensions.storage.work_items_breaker import LATELY_SECONDS, LONGEST_PROBE_SECONDS, MIN_FAILED, WorkItemBreaker


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breaker(clock):
    return WorkItemBreaker(clock)


def fail(breaker, count, first=0):
    for number in range(first, first + count):
        breaker.failed(str(number))


def test_it_opens_when_many_callers_have_failed(breaker):
    fail(breaker, MIN_FAILED - 1)
    assert not breaker.is_open
    assert breaker.permits()
    fail(breaker, 1, first=100)
    assert breaker.is_open
    assert not breaker.permits()


def test_one_caller_that_fails_over_and_over_does_not_open_it(breaker):
    for _ in range(1000):
        breaker.failed("the same")
    assert not breaker.is_open


def test_it_stays_closed_while_most_callers_succeed(breaker):
    for number in range(200):
        (breaker.failed if number % 2 else breaker.succeeded)(str(number))
    assert not breaker.is_open


def test_old_failures_do_not_count(breaker, clock):
    fail(breaker, MIN_FAILED - 1)
    clock.now = LATELY_SECONDS + 1
    fail(breaker, 1, first=100)
    assert not breaker.is_open


def test_it_permits_probes_with_growing_pauses(breaker, clock):
    fail(breaker, MIN_FAILED)
    probes = []
    while clock.now < 60:
        clock.now += 0.5
        if breaker.permits():
            assert breaker.permits(), "nobody has probed yet"
            breaker.probes()
            probes.append(clock.now)
            assert not breaker.permits(), "one probe at a time"
    pauses = [later - earlier for earlier, later in zip([0, *probes], probes, strict=False)]
    assert pauses[:4] == [1.0, 2.0, 4.0, 8.0]
    assert set(pauses[4:]) == {LONGEST_PROBE_SECONDS}


def test_a_success_closes_it(breaker, clock):
    fail(breaker, MIN_FAILED)
    clock.now = 1.0
    assert breaker.permits()
    breaker.succeeded("probe")
    assert not breaker.is_open
    fail(breaker, MIN_FAILED - 1)
    assert not breaker.is_open, "the failures from before are forgotten"
