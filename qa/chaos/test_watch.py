"""Rounds with probes: what they find becomes part of the verdict. The probes here are a script."""

import time

import pytest

from contracts.services import SERVICES
from qa.chaos.isolation import Sample
from qa.chaos.probes import DECISION, LOGIN, PROBES, Pace, decision
from qa.chaos.run import Outcome
from qa.chaos.slow_faults import Effect
from qa.chaos.watch import Watch

NOTHING = frozenset()


class Scripted:
    """Probes that have been fast before the fault, and answer in `during` seconds while it is active."""

    def __init__(self, during, names=tuple(probe.name for probe in PROBES)):
        self.during, self.names, self.is_running = during, names, False

    def start(self):
        self.is_running = True

    def stop(self):
        self.is_running = False

    def samples(self):
        now = time.time()
        before = [Sample(name, now - 60 + number, 0.02) for name in self.names for number in range(20)]
        during = [Sample(name, now + 0.01 * number, self.during) for name in self.names for number in range(8)]
        return before + during


def effect(affects=NOTHING):
    return Effect("a fault", frozenset(affects), broken=lambda: None)


def round_with(probes, affects=NOTHING, once=False):
    watch = Watch(probes, normal_seconds=0.0, once=once)
    watch.begin_round()
    with watch.during(effect(affects), "a kind") as window:
        window.effective = True
    window.ended += 60
    watch.end_round()
    return watch.isolation


def test_a_slow_unaffected_probe_makes_the_run_unsound():
    isolation = round_with(Scripted(during=1.0))
    outcome = Outcome(1, 0.0, isolation=isolation)
    assert len(isolation.violations) == len(PROBES)
    assert not outcome.sound
    assert not outcome.is_broken  # the run goes on, and finds the other ones


def test_fast_probes_leave_the_run_sound():
    isolation = round_with(Scripted(during=0.2))
    assert isolation.violations == isolation.problems == []
    assert isolation.normal == dict.fromkeys((probe.name for probe in PROBES), 0.02)
    assert Outcome(1, 0.0, isolation=isolation).sound


def test_only_probes_that_do_not_need_the_slow_part_are_judged():
    isolation = round_with(Scripted(during=1.0), affects={"orders", "users"})
    named = {one.probe for one in isolation.findings}
    assert named == {probe.name for probe in PROBES if not probe.needs & {"orders", "users"}}
    assert LOGIN not in named


def test_a_probe_without_a_normal_measurement_is_a_problem():
    isolation = round_with(Scripted(during=0.1, names=(DECISION,)))
    assert "without a fault, 0 of 0" in isolation.problems[0]
    assert {one.probe for one in isolation.findings} == {DECISION}
    assert not Outcome(1, 0.0, isolation=isolation).sound


@pytest.mark.parametrize(("names", "sound"), [((DECISION,), True), ((), False)])
def test_a_brief_run_judges_the_probes_that_it_could_measure(names, sound):
    isolation = round_with(Scripted(during=0.1, names=names), once=True)
    assert len(isolation.not_judged or isolation.problems) == len(PROBES) - len(names)
    assert Outcome(1, 0.0, isolation=isolation).sound == sound


def test_a_brief_run_measures_once():
    watch = Watch(Scripted(during=0.1), normal_seconds=0.05, once=True)
    for least in (0.05, 0.0):
        began = time.monotonic()
        watch.begin_round()
        assert (time.monotonic() - began >= 0.05) == bool(least)
        watch.end_round()
    assert len(watch.isolation.normal) == len(PROBES)


def test_requests_are_due_at_a_constant_rate_even_when_they_are_late():
    pace = Pace(rate=100.0)
    first = pace.next()
    time.sleep(0.05)
    assert pace.next() - first == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("row", "seconds", "failure"),
    [
        ({"status": "CONFIRMED", "began": 10, "decided": 10.5, "now": 99, "cancel_reason": None}, 0.5, ""),
        ({"status": "CREATED", "began": 10, "decided": None, "now": 14, "cancel_reason": None}, 4.0, ""),
        (
            {"status": "CANCELLED", "began": 10, "decided": 40, "now": 99, "cancel_reason": "TIMEOUT"},
            30.0,
            "cancelled: TIMEOUT",
        ),
    ],
)
def test_the_decision_of_an_order_is_a_sample(row, seconds, failure):
    assert decision(row) == Sample(DECISION, 10.0, seconds, failure)


def test_every_need_of_a_probe_is_a_service_or_of_the_gateway():
    known = {"gateway", "calls", *SERVICES}
    assert all(probe.needs <= known for probe in PROBES)
