"""Pauses between tries: they double, stay bounded, and differ between processes."""

from hypothesis import given
from hypothesis import strategies as st

from deploy.local.suite import FIRST_RESTART_SECONDS, HEALTHY_SECONDS, LONGEST_RESTART_SECONDS, restart_backoff
from extensions.runtime.backoff import Backoff


def bounds(backoff, tries):
    return [(pause, backoff.next_pause()) for pause in tries]


def test_pauses_double_up_to_the_longest_and_are_shortened_by_half_at_most():
    for limit, pause in bounds(Backoff(first=0.25, longest=10.0), [0.25, 0.5, 1, 2, 4, 8, 10, 10, 10]):
        assert limit / 2 <= pause <= limit


def test_pauses_start_again_after_a_success():
    backoff = Backoff(first=1.0, longest=60.0)
    for _ in range(10):
        backoff.next_pause()
    assert backoff.next_pause() >= 30.0
    backoff.reset()
    assert backoff.next_pause() <= 1.0


def test_processes_do_not_retry_at_the_same_time():
    assert len({Backoff().next_pause() for _ in range(50)}) > 40


class TestRestartsByTheLauncher:
    def test_pauses_double_up_to_the_longest_without_jitter(self):
        backoff = restart_backoff()
        assert [backoff.next_pause(ran_for=1) for _ in range(7)] == [0.5, 1, 2, 4, 8, 10, 10]

    def test_pauses_start_again_after_a_healthy_run(self):
        backoff = restart_backoff()
        for _ in range(5):
            backoff.next_pause(ran_for=1)
        assert backoff.failures == 5
        assert backoff.next_pause(ran_for=HEALTHY_SECONDS) == FIRST_RESTART_SECONDS
        assert backoff.failures == 1
        assert backoff.next_pause(ran_for=HEALTHY_SECONDS - 0.1) == 2 * FIRST_RESTART_SECONDS

    @given(st.lists(st.floats(min_value=0, max_value=1e6), max_size=2000))
    def test_a_pause_is_never_shorter_than_the_first_nor_longer_than_the_longest(self, runs):
        backoff = restart_backoff()
        assert all(FIRST_RESTART_SECONDS <= backoff.next_pause(run) <= LONGEST_RESTART_SECONDS for run in runs)
