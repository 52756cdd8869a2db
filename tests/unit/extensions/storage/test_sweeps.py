"""Sweeps: a row that fails or needs something locked delays no other."""

from contextlib import contextmanager
from itertools import pairwise
from types import SimpleNamespace

import pytest

from extensions.storage import sweeps
from extensions.storage.engine import DatabaseUnavailable, LockTimeout
from extensions.storage.sweeps import Sweep

LATER = 100.0  # longer than the longest pause


class Table:
    """Rows that are due. Those in `bad` raise their error when they are handled; `away` is an outage."""

    def __init__(self, *due):
        self.due, self.bad, self.away = list(due), {}, None
        self.now = 0.0
        self.batches = []
        self.sweep = Sweep("testing", lambda: self.now)

    @contextmanager
    def transaction(self, lock_timeout):
        assert lock_timeout
        before = list(self.due)
        try:
            yield self
        except Exception:
            self.due = before
            raise

    def lock(self, session, *, only, without):
        assert session is self
        if self.away:
            raise self.away
        return [SimpleNamespace(id=key) for key in self.due if key not in without and (only is None or key in only)]

    def handle(self, session, rows):
        self.batches.append([row.id for row in rows])
        for row in rows:
            session.due.remove(row.id)
            if row.id in self.bad:
                raise self.bad[row.id]

    def run(self):
        """Run the sweep; returns the batches that it tried."""
        self.batches = []
        self.sweep.run(self, self.lock, self.handle)
        return self.batches


def test_due_rows_are_handled_together():
    table = Table(1, 2, 3)
    assert table.run() == [[1, 2, 3]]
    assert table.run() == []


def test_a_row_that_fails_is_tried_alone_and_left_out_of_later_batches():
    table = Table(1, 2, 3)
    table.bad[2] = RuntimeError("intended failure")
    assert table.run() == [[1, 2, 3], [1], [2], [3]]
    assert table.due == [2]
    table.due += [4, 5]
    assert table.run() == [[4, 5]]
    table.now += LATER
    table.due.append(6)
    assert table.run() == [[6], [2]]


def test_a_row_that_fails_is_tried_again_after_pauses_that_grow_up_to_a_minute():
    table = Table(1)
    table.bad[1] = RuntimeError("intended failure")
    table.run()
    tries = []
    while table.now < 1000:
        table.now += 0.5
        tries += [table.now for _ in table.run()]
    pauses = [after - before for before, after in pairwise(tries)]
    assert pauses[0] < 4
    assert all(before * 1.2 < after for before, after in pairwise(pauses[:5]))
    assert max(pauses) <= sweeps.LONGEST_PAUSE_SECONDS + 0.5


def test_a_row_that_succeeds_again_or_is_no_longer_due_joins_the_batches():
    table = Table(1, 2)
    table.bad = {1: RuntimeError(), 2: RuntimeError()}
    table.run()
    table.bad.clear()
    table.due.remove(2)
    table.now += LATER
    assert table.run() == [[1]]
    table.due += [1, 2]
    assert table.run() == [[1, 2]]


def test_what_waits_for_a_lock_is_left_out_and_tried_again_soon():
    table = Table(1, 2)
    table.bad[1] = LockTimeout()
    for _ in range(6):
        table.run()
        table.now += 2 * sweeps.FIRST_PAUSE_SECONDS
    assert table.due == [1]
    table.bad.clear()
    table.run()
    assert table.due == []


def test_an_outage_is_raised_and_is_no_rows_fault():
    table = Table(1, 2)
    table.bad[1] = DatabaseUnavailable()
    with pytest.raises(DatabaseUnavailable):
        table.run()
    assert table.batches == [[1, 2]]
    table.bad.clear()
    table.away = LockTimeout()
    with pytest.raises(LockTimeout):
        table.run()
    table.away = None
    assert table.run() == [[1, 2]]


def test_the_rows_that_are_remembered_and_the_tries_of_a_run_are_bounded(monkeypatch, caplog):
    monkeypatch.setattr(sweeps, "MAX_FAILING", 3)
    monkeypatch.setattr(sweeps, "MAX_RETRIED", 2)
    monkeypatch.setattr(sweeps, "LOGGED", 1)
    table = Table(*range(5))
    table.bad = dict.fromkeys(range(5), RuntimeError("intended failure"))
    table.run()
    assert len([one for one in caplog.records if one.levelname == "ERROR"]) == 1
    table.due = [2, 3, 4]
    table.now += LATER
    assert table.run() == [[2], [3]]


def test_a_run_has_an_end(monkeypatch):
    table = Table(1, 2, 3)
    table.bad = dict.fromkeys((1, 2, 3), RuntimeError("intended failure"))
    handle = table.handle

    def slow(session, rows):
        table.now += sweeps.EACH_SECONDS + 0.1
        handle(session, rows)

    monkeypatch.setattr(table, "handle", slow)
    assert table.run() == [[1, 2, 3], [1]]
    monkeypatch.setattr(table, "handle", handle)
    assert table.run()[0] == [2, 3]
