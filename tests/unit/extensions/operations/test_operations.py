"""The health of a service is reported in time, also if its database does not respond."""

from types import SimpleNamespace

import eventlet
import pytest

from extensions.operations import operations
from extensions.storage.engine import DatabaseUnavailable


def refuse():
    raise DatabaseUnavailable


@pytest.mark.parametrize(
    ("database", "expected"),
    [(lambda: True, "ok"), (refuse, "unavailable"), (lambda: eventlet.sleep(5), "does not respond")],
    ids=["healthy", "unavailable", "no response"],
)
def test_the_state_of_the_database_is_reported_in_time(monkeypatch, database, expected):
    monkeypatch.setattr(operations, "DATABASE_SECONDS", 0.05)
    redis, work = SimpleNamespace(ping=lambda: True), SimpleNamespace(is_healthy=database)
    with eventlet.Timeout(1):
        health = operations.Operations.health(SimpleNamespace(redis=redis, work=work))
    assert expected in health["parts"]["database"]
    assert health["status"] == ("ok" if expected == "ok" else "failing")
