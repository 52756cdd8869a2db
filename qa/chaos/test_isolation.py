"""The judgement of the probes: a request that does not need the slow part and is slow is reported, and nothing else."""

import pytest

from qa.chaos.isolation import (
    RECOVERY_SECONDS,
    Finding,
    Isolation,
    Probe,
    Sample,
    Window,
    judge,
    limits,
    normal,
    p99,
    pooled,
    significant,
)

ORDER = Probe("order", frozenset({"gateway", "orders"}), 2.0)
LOGIN = Probe("login", frozenset({"gateway", "users"}), 1.0)
PROBES = (ORDER, LOGIN)
LIMIT = {"order": 0.5, "login": 0.5}
USERS_FROZEN = Window("users frozen", frozenset({"users"}), began=100.0, ended=110.0, effective=True)


def samples(probe, seconds, failure="", *, begin=100.5, count=10):
    return [Sample(probe, begin + number * 0.5, seconds, failure) for number in range(count)]


def violated(found):
    return {(one.kind, one.probe) for one in found if one.is_violated}


def test_an_unaffected_probe_that_is_slow_is_a_violation():
    found = judge(samples("order", 4.0), [USERS_FROZEN], PROBES, LIMIT)
    assert violated(found) == {("users frozen", "order")}
    assert str(found[0]) == "users frozen: order: 10 of 10 took longer than 500 ms or failed (p99 4000 ms)"


def test_an_unaffected_probe_that_fails_fast_is_a_violation():
    found = judge(samples("order", 0.01, "503 SERVICE_UNAVAILABLE"), [USERS_FROZEN], PROBES, LIMIT)
    assert violated(found) == {("users frozen", "order")}
    assert "503 SERVICE_UNAVAILABLE" in str(found[0])


def test_an_affected_probe_may_be_slow():
    assert judge(samples("login", 4.0, "504"), [USERS_FROZEN], PROBES, LIMIT) == []


def test_a_fast_unaffected_probe_is_no_violation():
    (found,) = judge(samples("order", 0.4), [USERS_FROZEN], PROBES, LIMIT)
    assert (found.samples, found.bad, found.p99, found.is_violated) == (10, 0, 0.4, False)


def test_a_single_slow_request_of_many_is_not_significant():
    found = judge([*samples("order", 0.1), Sample("order", 104.9, 3.0)], [USERS_FROZEN], PROBES, LIMIT)
    assert not violated(found)


def test_a_fault_without_an_effect_is_not_judged():
    missed = Window("users frozen", frozenset({"users"}), 100.0, 110.0)
    assert judge(samples("order", 4.0), [missed], PROBES, LIMIT) == []


@pytest.mark.parametrize(
    "other",
    [
        Window("at the same time", frozenset({"orders"}), 95.0, 120.0),
        Window("just before", frozenset({"orders"}), 90.0, 100.0 - RECOVERY_SECONDS + 10.0),
        Window("with a late effect", frozenset({"orders"}), 80.0, 90.0, lingers=20.0),
        Window("just after the request", frozenset({"orders"}), 100.6, 120.0),
    ],
    ids=lambda window: window.kind,
)
def test_a_request_that_another_fault_affects_says_nothing(other):
    one = samples("order", 4.0, count=2)
    assert judge(one, [USERS_FROZEN, other], PROBES, LIMIT) == []


def test_a_request_that_was_slow_before_another_fault_began_counts():
    later = Window("later", frozenset({"orders"}), 104.0, 120.0)
    found = judge(samples("order", 30.0, count=4), [USERS_FROZEN, later], PROBES, LIMIT)
    assert violated(found) == {("users frozen", "order")}


def test_both_faults_of_a_time_are_judged_by_the_requests_that_neither_affects():
    payments = Window("payments frozen", frozenset({"payments"}), 98.0, 112.0, effective=True)
    found = judge(samples("order", 4.0), [USERS_FROZEN, payments], PROBES, LIMIT)
    assert {kind for kind, probe in violated(found) if probe == "order"} == {"users frozen", "payments frozen"}
    assert {(one.kind, *one.beside) for one in found if one.probe == "order"} == {
        ("users frozen", "payments frozen"),
        ("payments frozen", "users frozen"),
    }


def test_the_allowance_of_a_fault_is_added_to_the_limit():
    redis = Window("redis frozen", frozenset(), 100.0, 110.0, allowance=0.1, effective=True)
    assert not violated(judge(samples("order", 0.55), [redis], PROBES, LIMIT))
    assert violated(judge(samples("order", 0.65), [redis], PROBES, LIMIT))


def test_the_limit_is_twice_the_normal_p99_and_never_less_than_the_least():
    assert limits({"order": 0.3, "login": 0.02}, least=0.25) == {"order": 0.6, "login": 0.25}


def test_the_normal_p99_needs_samples_that_succeed():
    assert normal([*samples("order", 0.2), *samples("login", 0.3)], PROBES) == ({"order": 0.2, "login": 0.3}, [])
    for failed, words in (([], "0 of 0 of 'login'"), (samples("login", 0.2, "503"), "10 of 10 of 'login'")):
        measured, (problem,) = normal([*samples("order", 0.2), *failed], PROBES)
        assert measured == {"order": 0.2}
        assert words in problem


def test_a_probe_without_a_limit_is_not_judged():
    assert judge(samples("order", 4.0), [USERS_FROZEN], PROBES, {"login": 0.5}) == []


def test_the_p99_of_few_samples_is_the_largest():
    assert p99([]) == 0.0
    assert p99([0.1, 0.3, 0.2]) == 0.3
    assert p99(range(1, 1001)) == 990


@pytest.mark.parametrize(("samples", "bad"), [(0, 2), (1, 2), (4, 2), (10, 3), (24, 4), (200, 9), (10_000, 133)])
def test_the_number_of_bad_samples_that_is_significant(samples, bad):
    assert significant(samples) == bad


def test_faults_of_a_kind_are_judged_together():
    one_slow_request_each = [Finding("kind", "order", samples=4, bad=1, p99=2.0, limit=0.5) for _ in range(5)]
    assert not any(one.is_violated for one in one_slow_request_each)
    (together,) = pooled(one_slow_request_each)
    assert (together.samples, together.bad, together.is_violated) == (20, 5, True)
    isolation = Isolation(0.25, findings=one_slow_request_each)
    assert [one.split(":")[0] for one in isolation.violations] == ["all faults together"]


def test_a_kind_is_named_once_if_a_single_fault_shows_its_violation():
    isolation = Isolation(0.25, findings=[Finding("kind", "order", samples=4, bad=4, limit=0.5)])
    assert len(isolation.violations) == 1
