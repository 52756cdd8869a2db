"""The test runner: how it combines the results of its workers."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import run
from tests.run import Report, reason_of, totals
from tests.worker import FOLDER_VARIABLE, NAME_VARIABLE, group_of

ROOT = Path(__file__).parents[2]
TESTS = ["tests/unit/test_a.py::test_one", "tests/unit/test_a.py::test_two"]
DONE = SimpleNamespace(name="1", process=SimpleNamespace(returncode=0), log=None)


def result(test, when="call", category="passed", text=""):
    return {"test": test, "when": when, "category": category, "seconds": 0.1, "text": text}


@pytest.fixture
def report():
    report = Report()
    report.add({"collected": TESTS})
    return report


def finish(report, *tests):
    for test in tests:
        report.add(result(test, "teardown", ""))


def test_the_last_line_has_the_format_of_pytest(report, capsys):
    for test in TESTS:
        report.add(result(test))
    finish(report, *TESTS)
    report.close([DONE])
    report.print(3725.5)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.strip("= ") == "2 passed in 3725.50s (1:02:05)"
    assert report.problems == []


def test_a_failure_is_printed_and_counted(report, capsys):
    report.add(result(TESTS[0], category="failed", text="assert 1 == 2"))
    report.add(result(TESTS[1]))
    finish(report, *TESTS)
    report.close([DONE])
    report.print(1.0)
    shown = capsys.readouterr().out
    assert "assert 1 == 2" in shown
    assert "1 failed, 1 passed in 1.00s" in shown.splitlines()[-1]


def test_a_test_that_no_worker_ran_is_an_error(report):
    finish(report, TESTS[0])
    report.close([DONE])
    assert [(what, text.splitlines()[1:]) for what, _, text in report.problems] == [
        ("1 tests", ["1 of tests/unit/test_a.py"])
    ]


def test_a_worker_that_ended_early_is_an_error(report, tmp_path):
    (tmp_path / "log").write_text("no servers")
    finish(report, *TESTS)
    report.close([SimpleNamespace(name="2", process=SimpleNamespace(returncode=-9), log=tmp_path / "log")])
    assert "no servers" in report.problems[0][2]


def test_a_worker_that_ended_as_after_a_failure_and_reported_none_is_an_error(report, tmp_path):
    (tmp_path / "log").write_text("Traceback")
    finish(report, *TESTS)
    worker = SimpleNamespace(name="2", process=SimpleNamespace(returncode=1), log=tmp_path / "log", has_failures=False)
    report.close([worker])
    assert "Traceback" in report.problems[0][2]


def test_workers_that_write_nothing_any_more_end_the_run(report, monkeypatch):
    monkeypatch.setattr(run, "SILENCE_SECONDS", 0.3)
    run.run([SimpleNamespace(process=SimpleNamespace(poll=lambda: None), new_results=list)], report)
    assert report.problems == [("run", "run", "no test has ended for 0.3 s")]


def test_workers_that_collect_different_tests_are_an_error(report):
    report.add({"collected": TESTS[:1]})
    assert report.problems
    assert report.totals["error"] == 1


def test_the_reason_of_a_failure_is_the_line_marked_by_pytest():
    assert (
        reason_of("def test():\n>   assert 1 == 2\nE   assert 1 == 2\n--- Captured stdout ---\nwords")
        == "assert 1 == 2"
    )
    assert reason_of("something\nno tests ran\n") == "no tests ran"


def test_totals_have_the_order_of_pytest():
    assert totals({"passed": 2, "failed": 1, "error": 1, "skipped": 0, "xfailed": 0, "xpassed": 0}) == (
        "1 failed, 2 passed, 1 error"
    )


def test_end_to_end_tests_are_one_group_and_each_other_file_is_a_group():
    assert group_of("tests/e2e/test_stories.py::test_x") == group_of("tests/e2e/test_access.py::test_y[1]")
    assert (
        group_of("tests/e2e/test_crashes.py::test_x")
        == group_of("tests/e2e/test_restarts.py::test_y")
        != group_of("tests/e2e/test_stories.py::test_x")
    )
    assert group_of("tests/unit/test_a.py::test_one") == "tests/unit/test_a.py"


def test_each_group_is_run_by_one_worker(tmp_path):
    (tmp_path / "run/claims").mkdir(parents=True)
    for name in "ab":
        (tmp_path / f"test_{name}.py").write_text("def test_one(): pass\ndef test_two(): pass\n")
    light = {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environment = light | {FOLDER_VARIABLE: str(tmp_path / "run")}
    options = ["-p", "tests.worker", "-p", "no:cacheprovider", "--import-mode=importlib"]
    command = [sys.executable, "-m", "pytest", *options, str(tmp_path)]
    workers = [
        subprocess.Popen(command, cwd=tmp_path, env=environment | {NAME_VARIABLE: name}, stdout=subprocess.DEVNULL)
        for name in "12"
    ]
    assert {worker.wait(60) for worker in workers} <= {0, 5}  # 5: the other worker has run all tests
    lines = "".join((tmp_path / f"run/{name}.jsonl").read_text() for name in "12").splitlines()
    ran = [one["test"] for one in map(json.loads, lines) if one.get("when") == "call"]
    assert sorted(ran) == sorted(f"test_{file}.py::test_{test}" for file in "ab" for test in ("one", "two"))
