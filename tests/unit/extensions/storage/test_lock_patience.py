"""After a wait in vain, the next transactions wait for a shorter time, for a while."""

import pytest

from extensions.storage.lock_patience import SHORT_SECONDS, LockPatience


@pytest.fixture
def clock():
    return [0.0]


@pytest.fixture
def patience(clock):
    return LockPatience("4s", "100ms", clock=lambda: clock[0])


def test_the_next_transactions_wait_for_a_shorter_time(patience, clock):
    assert patience.lock_timeout == "4s"
    patience.note_timeout()
    assert patience.lock_timeout == "100ms"
    clock[0] = SHORT_SECONDS
    assert patience.lock_timeout == "4s"


def test_a_timeout_in_the_shorter_time_does_not_prolong_it(patience, clock):
    patience.note_timeout()
    clock[0] = SHORT_SECONDS / 2
    patience.note_timeout()
    clock[0] = SHORT_SECONDS
    assert patience.lock_timeout == "4s"
