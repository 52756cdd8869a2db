from hypothesis import given
from hypothesis import strategies as st

from deploy.local.backoff import FIRST, HEALTHY, LONGEST, Backoff


def test_pauses_double_up_to_the_longest():
    backoff = Backoff()
    assert [backoff.pause(lived=1) for _ in range(7)] == [0.5, 1, 2, 4, 8, 10, 10]


def test_a_healthy_life_starts_the_row_again():
    backoff = Backoff()
    for _ in range(5):
        backoff.pause(lived=1)
    assert backoff.pause(lived=HEALTHY) == FIRST
    assert backoff.pause(lived=HEALTHY - 0.1) == 2 * FIRST


@given(st.lists(st.floats(min_value=0, max_value=1e6), max_size=2000))
def test_a_pause_is_never_shorter_than_the_first_nor_longer_than_the_longest(lives):
    backoff = Backoff()
    assert all(FIRST <= backoff.pause(lived) <= LONGEST for lived in lives)
