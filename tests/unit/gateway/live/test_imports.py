import json
from types import SimpleNamespace
from typing import get_args
from uuid import UUID

import pytest

from contracts.errors import ValidationFailed
from contracts.imports import OVER, ImportProgress, Status
from gateway.live import imports
from gateway.live.imports import Position
from gateway.live.watch import show
from tests.unit.gateway.live.test_watch import make_stream

IMPORT = UUID("0190a6b2-0000-7000-8000-000000000001")


def progress(status="MERGING", at="2026-11-22T09:30:00.000001Z", **more):
    counts = dict.fromkeys(("staged", "merged", "created", "updated", "unchanged", "failed"), 0)
    return {"id": str(IMPORT), "status": status, "mode": "skip_bad", **counts, "updated_at": at} | more


def test_the_errors_are_left_out():
    item = imports.item_of(progress(errors=[{"line": 1}], created_at="2026-11-22T09:30:00.000000Z"))
    assert item.data.decode().startswith(f"id: 3-{1_795_339_800_000_001}\n")
    assert set(json.loads(item.data.decode().partition("data: ")[2])) == set(ImportProgress.model_fields)
    assert Position(3, 1_795_339_800_000_001) == item.position == imports.position_of(str(item.position))


def test_the_end_comes_after_everything_else_whatever_the_clock_says():
    earlier, later = "2026-11-22T09:30:00.000000Z", "2026-11-22T10:30:00.000000Z"
    others = [imports.item_of(progress(status, later)) for status in get_args(Status) if status not in OVER]
    assert [item.position for item in others] == sorted(item.position for item in others)
    for status in OVER:
        end = imports.item_of(progress(status, earlier))
        assert end.is_last
        assert end.position > max(item.position for item in others)
    assert not any(item.is_last for item in others)


def test_the_end_of_the_list_ends_the_stream():
    stream = make_stream(position=imports.NOTHING)
    show(stream, [imports.item_of(progress())])
    assert not stream.ended
    show(stream, [imports.item_of(progress("DONE"))])
    assert stream.ended == "complete"
    assert stream.take_first().endswith(b'event: end\ndata: {"reason":"complete"}\n\n')


@pytest.mark.parametrize("header", ["7", "5-1", "3-", "3--1", "3-1 ", "\u0663-1", "3-" + "9" * 18])
def test_what_is_no_position_is_refused(header):
    with pytest.raises(ValidationFailed, match="Last-Event-ID"):
        imports.position_of(header)


def test_many_imports_are_one_call():
    asked = []

    def get_imports(wanted):
        asked.append(wanted.import_ids)
        return {"items": [progress()]}

    found = imports.fetch(SimpleNamespace(get_imports=get_imports), {IMPORT: imports.NOTHING})
    assert asked == [(IMPORT,)]
    assert [item.position.stage for item in found.items[IMPORT]] == [3]
