"""Steps that do not need each other."""

import pytest

from extensions.runtime.steps import run_each


def test_a_step_that_fails_stops_none_of_those_after_it():
    done = []

    def fail(number):
        done.append(number)
        raise RuntimeError(f"failure {number}")

    with pytest.raises(RuntimeError, match="failure 1") as failure:
        run_each([lambda: fail(1), lambda: done.append(2), lambda: fail(3), lambda: done.append(4)])
    assert done == [1, 2, 3, 4]
    assert "failure 3" in failure.value.__notes__[0]


def test_steps_without_a_failure_raise_nothing():
    run_each([lambda: 1, lambda: 2])
