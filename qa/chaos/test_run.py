"""Every run ends in a verdict, also if a fault never ends or the servers never come back."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import psycopg2
import pytest

from deploy.local.process import StartError
from qa.chaos import run as run_module
from qa.chaos.run import Plan, Run


class Load:
    """A load without requests."""

    def __init__(self):
        self.accepted, self.requests, self.responses = [], [], Counter()

    def resume(self):
        pass

    def pause(self, _seconds):
        return True


class Fault:
    name = "a fault"

    def __init__(self, inject):
        self._inject = inject

    def inject(self, _sandbox, _chance):
        return self._inject()


@pytest.fixture
def outcome_of(monkeypatch):
    """Returns a function that runs one fault; the invariants hold unless they are replaced."""
    monkeypatch.setattr(run_module, "await_decided", lambda *_: 0.1)
    monkeypatch.setattr(run_module, "judge", lambda *_: [])
    sandbox = SimpleNamespace(wait_ready=lambda _seconds: None)

    def run(inject):
        with ThreadPoolExecutor(1) as workers:
            plan = Plan(per_round=1, pause=0.0, kinds=[Fault(inject)])
            return Run(sandbox, Load(), plan, 1, workers, say=lambda _line: None).run()

    return run


def fail(error):
    raise error


def test_a_fault_that_heals_leaves_a_sound_run(outcome_of):
    outcome = outcome_of(lambda: "done")
    assert outcome.sound
    assert outcome.injected == {"a fault": 1}


def test_a_fault_that_never_ends_is_a_problem_of_the_verdict(outcome_of, monkeypatch):
    monkeypatch.setattr(run_module, "LONGEST_FAULT", 0.2)
    over = threading.Event()
    monkeypatch.setattr(run_module, "judge", lambda *_: over.set() or [])
    outcome = outcome_of(lambda: str(over.wait(30)))
    assert not outcome.sound
    assert "did not end within" in outcome.problems[0]


def test_a_server_that_never_comes_back_is_a_problem_of_the_verdict(outcome_of, monkeypatch):
    monkeypatch.setattr(run_module, "await_decided", lambda *_: fail(psycopg2.OperationalError("no server")))
    outcome = outcome_of(lambda: fail(StartError("postgres was not ready after 60 s")))
    assert [problem.partition(":")[0] for problem in outcome.problems] == [
        "a fault failed",
        "round 1 could not be judged",
    ]
    assert not outcome.sound
