"""`make check-consistency`: when it stops waiting, what it prints, and its exit code for scripts."""

import json

import pytest

from deploy import consistency
from deploy.healthcheck import Unhealthy


def seen(count=0, *, at_rest=True, ids=("a",)):
    return {
        "at_rest": at_rest,
        "in_flight": 0 if at_rest else 3,
        "checks": [
            {"name": "orders_decided", "count": count, "ids": list(ids[:count])},
            {"name": "no_orphans", "count": 0, "ids": []},
        ],
    }


def looks(*results):
    """Return one result after the other; the last one repeats."""
    left = list(results)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def test_the_command_waits_until_nothing_is_in_flight():
    assert consistency.await_rest(looks(seen(1, at_rest=False), seen()), timeout=5, pause=0) == seen()


def test_a_violation_is_reported_after_it_was_seen_twice():
    assert consistency.await_rest(looks(seen(1), seen()), timeout=5, pause=0) == seen()
    assert consistency.await_rest(looks(seen(1), seen(1)), timeout=5, pause=0) == seen(1)


def test_the_wait_ends_with_its_timeout():
    restless = seen(at_rest=False)
    assert consistency.await_rest(looks(restless), timeout=0.02, pause=0.005) == restless


def test_the_report_names_the_violations():
    lines = list(consistency.report(seen(3)))
    assert lines[0].split() == ["result", "violations", "invariant"]
    assert lines[1].split() == ["BROKEN", "3", "orders_decided"]
    assert [line.strip() for line in lines[2:4]] == ["a", "and 2 more"]
    assert lines[4].split() == ["ok", "0", "no_orphans"]
    assert lines[-1] == "at rest"
    assert list(consistency.report(seen(at_rest=False)))[-1] == "not at rest: 3 in flight"


@pytest.mark.parametrize(
    ("result", "code"),
    [
        (seen(), 0),
        (seen(1), 1),
        (seen(at_rest=False), 1),
        (Unhealthy("orders answers: This needs the admin role."), 2),
        (ConnectionRefusedError("no broker"), 2),
    ],
    ids=["sound", "broken", "restless", "refused", "no broker"],
)
def test_the_exit_code_shows_the_result(monkeypatch, capsys, result, code):
    def ask(_amqp_uri, *_question, timeout=3.0):
        if isinstance(result, Exception):
            raise result
        return json.loads(json.dumps(result))

    monkeypatch.setattr(consistency, "ask", ask)
    assert consistency.main(["--timeout", "0"]) == code
    printed = capsys.readouterr()
    assert (printed.err != "") == (code == 2)
    assert (printed.out != "") == (code != 2)


@pytest.mark.parametrize(
    ("silent", "error"),
    [(("payments",), "payments does not respond"), (("orders", "check_consistency"), "did not end within 300 s")],
    ids=["a service", "the comparison"],
)
def test_a_service_that_does_not_respond_is_named(monkeypatch, capsys, silent, error):
    def ask(_amqp_uri, *question, timeout=3.0):
        if question[: len(silent)] == silent:
            raise TimeoutError
        return seen()

    monkeypatch.setattr(consistency, "ask", ask)
    assert consistency.main(["--timeout", "0"]) == 2
    assert error in capsys.readouterr().err
