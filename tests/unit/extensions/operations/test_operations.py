"""The health of a service is reported in time, also if its database does not respond."""

from types import SimpleNamespace

import eventlet
import pytest

from extensions.operations import operations
from extensions.runtime.progress import Loops
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
    outbox = SimpleNamespace(broker_problem="")
    with eventlet.Timeout(1):
        health = operations.Operations.health(SimpleNamespace(redis=redis, work=work, outbox=outbox, loops=Loops()))
    assert expected in health["parts"]["database"]
    assert health["status"] == ("ok" if expected == "ok" else "degraded")


def test_a_problem_of_publishing_is_named():
    redis, work = SimpleNamespace(ping=lambda: True), SimpleNamespace(is_healthy=lambda: True)
    outbox = SimpleNamespace(broker_problem="the broker did not confirm in time")
    health = operations.Operations.health(SimpleNamespace(redis=redis, work=work, outbox=outbox, loops=Loops()))
    assert health["status"] == "degraded"
    assert health["parts"]["publishing"] == "the broker did not confirm in time"


def test_only_a_stuck_loop_is_failing():
    redis, work = SimpleNamespace(ping=lambda: True), SimpleNamespace(is_healthy=refuse)
    loops = Loops()
    with loops.running("outbox.relay", -1):
        outbox = SimpleNamespace(broker_problem="")
        health = operations.Operations.health(SimpleNamespace(redis=redis, work=work, outbox=outbox, loops=loops))
    assert health["status"] == "failing"
    assert health["parts"]["loops"] == "stuck: outbox.relay (0 s)"
