"""Makes a pytest process one of several workers that share a run: see tests/run.py, which loads this plugin.

Each worker collects every test. It claims a group of tests (a file, or a folder whose tests share an expensive fixture)
by creating a file that no other worker can create, runs the group, and claims the next one.
"""

import json
import os
from pathlib import Path

import pytest

FOLDER_VARIABLE = "TEST_RUN_FOLDER"
NAME_VARIABLE = "TEST_WORKER"
# The end-to-end tests share a running suite. They are two groups, so that two workers can run them at the same time:
# the tests that stop, kill or restart something or need second processes, and all others.
E2E = "tests/e2e/"
DISTURBING = {
    f"{E2E}test_{name}.py"
    for name in ("crashes", "freezes", "hazards", "instances", "metrics", "outages", "poison", "restarts")
}


def group_of(nodeid):
    """The name of the group that a test belongs to."""
    file = nodeid.partition("::")[0]
    if file.startswith(E2E):
        return f"{E2E}disturbing" if file in DISTURBING else f"{E2E}others"
    return file


class Worker:
    """The plugin of one worker."""

    def __init__(self, folder, name):
        self._claims = folder / "claims"
        self._results = (folder / f"{name}.jsonl").open("a", buffering=1)
        self._config = None

    def pytest_configure(self, config):
        self._config = config

    def pytest_collection_finish(self, session):
        self._write(collected=[item.nodeid for item in session.items])

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session):
        """Run what this worker claims. A failed collection is left to pytest."""
        if session.testsfailed or session.config.option.collectonly:
            return None
        items = self._claimed_items(session.items)
        item = next(items, None)
        while item is not None:
            following = next(items, None)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)
            item = following
        return True

    def _claimed_items(self, items):
        groups = {}
        for item in items:
            groups.setdefault(group_of(item.nodeid), []).append(item)
        for group, members in groups.items():
            if self._claim(group):
                yield from members

    def _claim(self, group):
        try:
            (self._claims / group.replace("/", "+")).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def pytest_runtest_logreport(self, report):
        category = self._config.hook.pytest_report_teststatus(report=report, config=self._config)[0]
        text = report.longreprtext if category not in {"", "passed"} else ""
        if report.failed:
            text += "".join(f"\n--- {title} ---\n{content}" for title, content in report.sections)
        self._write(
            test=report.nodeid,
            when=report.when,
            category=category,
            seconds=report.duration,
            text=text,
            at=os.times()[4],
        )

    def pytest_collectreport(self, report):
        if report.failed:
            self._write(test=report.nodeid, when="collect", category="error", seconds=0, text=report.longreprtext)

    def _write(self, **entry):
        self._results.write(json.dumps(entry) + "\n")


def pytest_configure(config):
    """Register the plugin when the process is a worker."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder and not hasattr(config, "workerinput"):
        worker = Worker(Path(folder), os.environ[NAME_VARIABLE])
        config.pluginmanager.register(worker)
