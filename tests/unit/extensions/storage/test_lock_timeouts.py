"""After a wait in vain, the next transactions wait for a shorter time, for a while."""

import pytest

from extensions.storage.lock_timeouts import SHORT_SECONDS, LockTimeouts


@pytest.fixture
def clock():
    return [0.0]


@pytest.fixture
def timeouts(clock):
    return LockTimeouts("4s", "100ms", clock=lambda: clock[0])


def test_the_next_transactions_wait_for_a_shorter_time(timeouts, clock):
    assert timeouts.current == "4s"
    timeouts.note_timeout()
    assert timeouts.current == "100ms"
    clock[0] = SHORT_SECONDS
    assert timeouts.current == "4s"


def test_a_timeout_in_the_shorter_time_does_not_prolong_it(timeouts, clock):
    timeouts.note_timeout()
    clock[0] = SHORT_SECONDS / 2
    timeouts.note_timeout()
    clock[0] = SHORT_SECONDS
    assert timeouts.current == "4s"
