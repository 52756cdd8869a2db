import pytest

from extensions.runtime import circuit_breaker as module
from extensions.runtime.circuit_breaker import MIN_FAILURES, WINDOW_SECONDS, CircuitBreaker, CircuitOpen, State


@pytest.fixture
def clock(monkeypatch):
    """The time that the circuit breaker sees; a test moves it with `clock(seconds)`."""
    now = [1000.0]

    def advance(seconds):
        now[0] += seconds

    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return advance


@pytest.fixture
def breaker(clock):
    changes = []
    breaker = CircuitBreaker(changes.append)
    breaker.changes = changes
    return breaker


def call(breaker, failed):
    """Make one call; returns whether it was the probe."""
    is_probe = breaker.admit()
    breaker.record(failed=failed, is_probe=is_probe)
    return is_probe


def opened(breaker):
    for _ in range(MIN_FAILURES):
        call(breaker, failed=True)
    assert breaker.state is State.OPEN
    return breaker


def is_refused(breaker):
    with pytest.raises(CircuitOpen) as refusal:
        breaker.admit()
    return refusal.value.retry_after > 0


def test_it_opens_after_some_failures_and_refuses_calls(breaker):
    for _ in range(MIN_FAILURES - 1):
        call(breaker, failed=True)
    assert breaker.state is State.CLOSED
    call(breaker, failed=True)
    assert is_refused(breaker)
    assert breaker.changes == [State.OPEN]


def test_it_stays_closed_while_most_calls_succeed(breaker):
    for _ in range(10 * MIN_FAILURES):
        call(breaker, failed=False)
        call(breaker, failed=False)
        call(breaker, failed=True)
    assert breaker.state is State.CLOSED


def test_calls_that_say_nothing_do_not_count(breaker):
    for _ in range(10 * MIN_FAILURES):
        call(breaker, failed=None)
    assert breaker.state is State.CLOSED


def test_failures_that_are_far_apart_do_not_open_it(breaker, clock):
    for _ in range(10 * MIN_FAILURES):
        call(breaker, failed=True)
        clock(WINDOW_SECONDS / 2 + 1)
    assert breaker.state is State.CLOSED


def test_old_successes_do_not_keep_it_closed(breaker, clock):
    for _ in range(1000):
        call(breaker, failed=False)
    clock(WINDOW_SECONDS + 1)
    opened(breaker)


def test_one_probe_passes_and_closes_it(breaker, clock):
    opened(breaker)
    clock(module.PROBE_PAUSE_SECONDS)
    assert breaker.admit()
    assert is_refused(breaker)  # while the probe is under way
    breaker.record(failed=False, is_probe=True)
    assert not call(breaker, failed=True)  # the failures before are forgotten
    assert breaker.changes == [State.OPEN, State.HALF_OPEN, State.CLOSED]


@pytest.mark.parametrize("failed", [True, None])
def test_a_probe_without_a_success_leaves_it_open(breaker, clock, failed):
    opened(breaker)
    clock(module.PROBE_PAUSE_SECONDS)
    assert call(breaker, failed=failed)
    assert is_refused(breaker)
    clock(module.PROBE_PAUSE_SECONDS)
    assert call(breaker, failed=False)
    assert breaker.state is State.CLOSED


def test_calls_from_before_it_opened_change_nothing(breaker):
    early = breaker.admit()
    opened(breaker)
    breaker.record(failed=False, is_probe=early)
    assert breaker.state is State.OPEN


def test_another_sign_of_life_brings_the_probe_forward(breaker):
    opened(breaker)
    breaker.probe_soon()
    breaker.check()
    assert call(breaker, failed=False)
