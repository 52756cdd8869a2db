"""A loop is stuck if it has not reported for its bound, and never because it waits for work."""

from types import SimpleNamespace

import pytest

from extensions.runtime import progress
from extensions.runtime.progress import Loops, loops_of, report_current_progress, set_current_loop


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=1000.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_loop_that_does_not_report_is_stuck_until_its_next_report(clock):
    loops = Loops()
    with loops.running("relay", 10) as loop:
        clock.now += 10
        assert loops.stuck() == {}
        clock.now += 1
        assert loops.stuck() == {"relay": 11}
        assert loops.is_stuck("relay")
        assert loops.problem() == "stuck: relay (11 s)"
        loop.report_progress()
        assert loops.stuck() == {}
        assert loops.problem() == ""


def test_a_loop_that_waits_for_work_is_never_stuck(clock):
    loops = Loops()
    with loops.running("consumer", 10) as loop:
        loop.report_idle()
        clock.now += 1_000_000
        assert loops.stuck() == {}
        assert loops.age("consumer") == 0
        loop.report_progress()
        clock.now += 11
        assert loops.stuck() == {"consumer": 11}


def test_a_loop_that_waits_for_a_time_is_stuck_if_it_does_not_wake(clock):
    loops = Loops()
    with loops.running("timer", 10) as loop:
        loop.report_idle(3600)
        clock.now += 3610
        assert loops.stuck() == {}
        clock.now += 1
        assert loops.stuck() == {"timer": 3611}


def test_a_loop_that_has_ended_is_not_stuck(clock):
    loops = Loops()
    with pytest.raises(ZeroDivisionError), loops.running("relay", 10):
        1 / 0  # noqa: B018
    clock.now += 11
    assert loops.stuck() == {}
    assert loops.names() == set()


def test_of_loops_with_one_name_the_stuck_one_counts(clock):
    loops, names = Loops(), []
    loops.on_new_name = names.append
    with loops.running("collect", 10), loops.running("collect", 10) as other:
        clock.now += 11
        other.report_progress()
        assert loops.stuck() == {"collect": 11}
    assert names == ["collect"]


def test_a_worker_reports_for_the_loop_that_waits_for_it(clock):
    with Loops().running("timer", 10) as loop:
        clock.now += 11
        set_current_loop(loop)
        report_current_progress()
        assert not loop.is_stuck
        set_current_loop(None)
        clock.now += 11
        report_current_progress()
        assert loop.is_stuck


def test_each_container_has_its_own_loops():
    one, other = SimpleNamespace(), SimpleNamespace()
    assert loops_of(one) is loops_of(one)
    assert loops_of(one) is not loops_of(other)
