"""Old rows of the messaging tables are deleted, and no others."""

import pytest
import sqlalchemy
from nameko import config
from sqlalchemy import func, text

from contracts.ids import new_id
from extensions.operations import operations
from extensions.storage import retention
from extensions.storage.unit_of_work import Work
from notifications.models import Base
from tests.support import database, eventually, owned_database

TABLES = Base.metadata.tables


class Keeper(operations.Operations):
    name = "notifications"
    work = Work(Base)


def enter(table, **values):
    with database("notifications").begin() as connection:
        connection.execute(sqlalchemy.insert(TABLES[table]).values(values))


def hours_ago(hours):
    return func.clock_timestamp() - func.make_interval(0, 0, 0, 0, hours)


def handled(hours):
    enter("inbox", message_id=new_id(), handler=f"{hours}", created_at=hours_ago(hours))


def answered(hours):
    enter(
        "idempotency_keys",
        actor="a",
        method="m",
        key=f"{hours}",
        fingerprint="f",
        answer={},
        created_at=hours_ago(hours),
    )


def died(hours, replayed_hours=None):
    replayed_at = None if replayed_hours is None else hours_ago(replayed_hours)
    enter(
        "dead_letters",
        id=new_id(),
        queue="q",
        body="",
        headers={},
        error=f"{hours}, {replayed_hours}",
        attempts=1,
        created_at=hours_ago(hours),
        replayed_at=replayed_at,
    )


def left(table, column):
    with database("notifications").connect() as connection:
        return sorted(connection.scalars(text(f"SELECT {column} FROM {table}")))


@pytest.fixture
def no_run_yet(run_service):
    run_service(Keeper).stop()
    with owned_database("notifications").begin() as connection:
        connection.execute(text("DELETE FROM timers"))


def test_old_rows_are_deleted_and_young_rows_are_kept(no_run_yet, run_service):
    for hours in (1, 47, 49, 1000):
        handled(hours)
        answered(hours)
    died(1000)  # not replayed: kept at any age
    died(1000, replayed_hours=719)
    died(1000, replayed_hours=721)
    run_service(Keeper)
    eventually(lambda: left("inbox", "handler") == ["1", "47"])
    eventually(lambda: left("idempotency_keys", "key") == ["1", "47"])
    eventually(lambda: left("dead_letters", "error") == ["1000, 719", "1000, None"])


def test_a_setting_states_the_age(no_run_yet, run_service, monkeypatch):
    monkeypatch.setitem(config.data, "INBOX_HOURS", 2)
    handled(1)
    handled(3)
    run_service(Keeper)
    eventually(lambda: left("inbox", "handler") == ["1"])


def test_a_locked_table_stops_the_deletion_from_no_other(no_run_yet, run_service):
    handled(100)
    died(2000, replayed_hours=1000)
    with owned_database("notifications").begin() as connection:
        connection.execute(text("LOCK TABLE inbox"))  # the first of them
        run_service(Keeper)
        eventually(lambda: left("dead_letters", "error") == [])
    eventually(lambda: left("inbox", "handler") == [])  # tried again soon, not after five minutes


def test_many_rows_are_deleted_in_several_batches(no_run_yet, run_service, monkeypatch):
    monkeypatch.setattr(retention, "BATCH", 3)
    for _ in range(10):
        handled(100)
    run_service(Keeper)
    eventually(lambda: left("inbox", "handler") == [])
