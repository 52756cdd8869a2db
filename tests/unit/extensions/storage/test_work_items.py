"""What runs beside the lanes of work items: the end of a pause wakes its lane, and the watch survives failures."""

from types import SimpleNamespace
from uuid import uuid4

import eventlet
import pytest

from extensions.storage import work_items, work_items_runner
from extensions.storage.work_items import Failure, Item
from extensions.storage.work_items_recorder import Recorder
from extensions.storage.work_items_runner import WorkItems
from tests.support import eventually


def test_the_lane_of_a_failed_item_is_woken_after_its_pause():
    woken, postponed = [], []

    def in_transaction(_step):
        postponed.append(len(postponed))
        return set()

    recorder = Recorder(in_transaction, woken.append)
    running = eventlet.spawn(recorder.run)
    for kind, pause in (("authorisation", 0.05), ("settlement", 60.0)):
        recorder.fail(Failure(Item("a", kind, 1, uuid4()), "failed", pause))
    eventually(lambda: postponed)
    eventually(lambda: woken == ["authorisation"])
    recorder.stop()
    running.wait()


def test_the_watch_of_the_backlog_survives_a_failure(monkeypatch):
    monkeypatch.setattr(work_items_runner, "BACKLOG_SECONDS", 0.01)
    counted = []

    def backlog(_session, _table):
        counted.append(len(counted))
        if len(counted) < 3:
            raise OSError("the database is away")
        return {"authorisation": (1, 0, 0.0)}

    monkeypatch.setattr(work_items, "backlog", backlog)
    runner = WorkItems((), dict)
    runner.container, runner.instruments = SimpleNamespace(), SimpleNamespace(backlog=())
    session = pytest.MonkeyPatch.context
    runner.storage = SimpleNamespace(table=str, sessions=session)
    watch = eventlet.spawn(runner._watch_backlog)
    eventually(lambda: runner.instruments.backlog is None)
    eventually(lambda: runner.instruments.backlog == {"authorisation": (1, 0, 0.0)})
    watch.kill()
