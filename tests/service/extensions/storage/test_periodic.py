"""Periodic methods: when they run, when they do not, and that no failure ends them."""

import time
from itertools import pairwise

import eventlet
import pytest
import sqlalchemy

from contracts.errors import ServiceUnavailable
from extensions.operations import operations
from extensions.rpc.server import rpc
from extensions.storage.periodic import periodic
from extensions.storage.unit_of_work import Work
from notifications.models import Base
from tests.support import database, eventually

RUNS = []
RUNNING = {"now": 0, "most": 0}
FAILURES = {"tick": [], "chime": []}


class Clock(operations.Operations):
    """One method that is due all the time, one that runs at the start and when it is triggered."""

    name = "notifications"
    work = Work(Base)

    @periodic(seconds=0.05)
    def tick(self):
        RUNNING["now"] += 1
        RUNNING["most"] = max(RUNNING.values())
        RUNS.append("tick")
        eventlet.sleep(0.05)
        RUNNING["now"] -= 1
        fail("tick")

    @periodic(seconds=3600)
    def chime(self):
        RUNS.append("chime")
        fail("chime")

    @rpc
    def trigger(self, pause=0.0, fail=False):
        self.work.trigger(self.chime)
        eventlet.sleep(pause)
        if fail:
            raise RuntimeError("after all")


def fail(method):
    if FAILURES[method]:
        failure = FAILURES[method].pop()
        raise failure


class Alone(operations.Operations):
    """A method that opens its transactions itself."""

    name = "notifications"
    work = Work(Base)

    @periodic(seconds=0.05, transaction=False)
    def tick(self):
        for _ in range(2):
            with self.work.transaction() as session:
                RUNS.append(session.scalar(sqlalchemy.text("SELECT 1")))


@pytest.fixture(autouse=True)
def nothing_yet():
    RUNS.clear()
    FAILURES.update(tick=[], chime=[])
    RUNNING.update(now=0, most=0)


def ran(method, times):
    return lambda: RUNS.count(method) >= times


def test_it_runs_at_the_start_and_then_once_per_interval(run_service):
    began = time.monotonic()
    run_service(Clock)
    eventually(ran("tick", 5))
    assert time.monotonic() - began >= 4 * 0.05
    assert RUNS.count("chime") == 1


def test_a_transaction_triggers_it_when_it_is_committed_and_not_sooner(run_service, caller):
    run_service(Clock)
    eventually(ran("chime", 1))
    call = eventlet.spawn(caller.notifications.trigger, 0.3)
    eventlet.sleep(0.2)
    assert RUNS.count("chime") == 1
    call.wait()
    eventually(ran("chime", 2))


def test_a_transaction_that_is_rolled_back_triggers_nothing(run_service, caller):
    run_service(Clock)
    eventually(ran("chime", 1))
    with pytest.raises(Exception, match="our side"):
        caller.notifications.trigger(fail=True)
    before = RUNS.count("tick")
    eventually(ran("tick", before + 2))
    assert RUNS.count("chime") == 1


def test_instances_never_run_it_at_the_same_time(run_service):
    containers = [run_service(Clock) for _ in range(2)]
    eventually(ran("tick", 12))
    assert RUNNING["most"] == 1
    containers[0].stop()  # the other instance continues
    before = RUNS.count("tick")
    eventually(ran("tick", before + 3))


def due_at(session, timer):
    """When the timer is due next. By the clock of the database: a run can begin late on a busy machine."""
    return session.execute(sqlalchemy.text("SELECT due_at FROM timers WHERE name = :timer"), {"timer": timer}).scalar()


class Hourglass(operations.Operations):
    """Two methods that run every second: one in the transaction of the timer, one without."""

    name = "notifications"
    work = Work(Base)

    @periodic(seconds=1.0)
    def turn(self):
        RUNS.append(("turn", due_at(self.work.session, "turn")))

    @periodic(seconds=1.0, transaction=False)
    def trickle(self):
        with self.work.transaction() as session:
            RUNS.append(("trickle", due_at(session, "trickle")))


def test_it_fires_once_per_interval_however_many_instances_run(run_service):
    for _ in range(3):
        run_service(Hourglass)
        eventlet.sleep(0.3)  # so that the instances check at different times
    eventually(lambda: len(RUNS) >= 8)
    for timer in ("turn", "trickle"):
        fired = [at for name, at in RUNS if name == timer]
        assert len(fired) >= 3
        assert len(set(fired)) == len(fired)
        assert min((later - earlier).total_seconds() for earlier, later in pairwise(sorted(fired))) >= 1


def test_a_clock_that_was_set_back_stops_no_timer(run_service):
    run_service(Clock)
    eventually(ran("tick", 1))
    with database("notifications").begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE timers SET due_at = due_at + interval '1 day'"))
    before = RUNS.count("tick")
    eventually(ran("tick", before + 3))


@pytest.mark.parametrize("failure", [RuntimeError, ServiceUnavailable, eventlet.Timeout])
def test_a_failed_run_is_repeated(run_service, caller, failure):
    FAILURES.update(tick=[failure] * 2, chime=[failure])
    run_service(Clock)
    eventually(lambda: FAILURES == {"tick": [], "chime": []})
    before = RUNS.count("tick")
    eventually(ran("tick", before + 3))
    eventually(ran("chime", 2))  # and not after an hour
    assert caller.notifications.health()["status"] == "ok"


def test_it_continues_after_an_outage_of_the_database(run_service, servers):
    run_service(Clock)
    eventually(ran("tick", 1))
    servers.postgres.restart()
    before = RUNS.count("tick")
    eventually(ran("tick", before + 3), timeout=30)
    assert RUNNING["most"] == 1


def test_without_a_transaction_the_method_can_open_several(run_service):
    run_service(Alone)
    eventually(ran(1, 4))


class Delayed(operations.Operations):
    """A method that is delayed after a gap, so that waiting messages are handled first."""

    name = "notifications"
    work = Work(Base)

    @periodic(seconds=0.05, after_gap=0.5)
    def tick(self):
        RUNS.append(time.monotonic())


def test_it_is_delayed_at_the_start_and_after_the_process_was_suspended(run_service):
    began = time.monotonic()
    run_service(Delayed)
    eventually(lambda: len(RUNS) >= 3)
    assert RUNS[0] - began >= 0.5
    suspend()
    suspended_until = time.monotonic()
    count = len(RUNS)
    eventually(lambda: len(RUNS) > count)
    assert RUNS[count] - suspended_until >= 0.4  # its delay began during the suspension


class SuspendedWhileRunning(operations.Operations):
    """The process is suspended during the third run."""

    name = "notifications"
    work = Work(Base)

    @periodic(seconds=0.05, after_gap=0.5)
    def tick(self):
        RUNS.append(time.monotonic())
        if len(RUNS) == 3:
            suspend()
            RUNS[2] = time.monotonic()


def test_a_suspension_during_a_run_delays_the_next_one(run_service):
    run_service(SuspendedWhileRunning)
    eventually(lambda: len(RUNS) > 3)
    assert RUNS[3] - RUNS[2] >= 0.4


def suspend():
    """Block all greenlets of this process for longer than the gap, as a SIGSTOP would."""
    stop = time.monotonic() + 0.7
    while time.monotonic() < stop:
        pass
