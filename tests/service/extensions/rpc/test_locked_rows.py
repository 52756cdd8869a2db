"""Calls that need a row which another session has locked hold up no other call of their service."""

from contextlib import contextmanager

import eventlet
import pytest
import sqlalchemy
from nameko import config

from contracts.errors import ServiceUnavailable
from extensions.operations import operations
from extensions.rpc.server import rpc
from extensions.storage.unit_of_work import Work
from notifications.models import Base
from tests.support import Caller, database

CALLS = 4
SECONDS = 6
ROW = sqlalchemy.text("SELECT name FROM timers WHERE name = 'held' FOR UPDATE")


class Holder(operations.Operations):
    """Takes the place of notifications."""

    name = "notifications"
    work = Work(Base)

    @rpc
    def need_row(self):
        self.work.session.execute(ROW)

    @rpc
    def ping(self):
        return self.work.session.scalar(sqlalchemy.text("SELECT 'pong'"))


@contextmanager
def locked():
    """Hold the row in another session."""
    engine = database("notifications")
    with engine.begin() as setup:
        setup.execute(sqlalchemy.text("INSERT INTO timers VALUES ('held', now()) ON CONFLICT DO NOTHING"))
    with engine.begin() as holder:
        holder.execute(ROW)
        yield


def test_they_end_before_their_callers_give_up_and_leave_room_for_others(run_service):
    with config.patch({"RPC_PREFETCH": CALLS}):
        run_service(Holder)
    caller = Caller(timeout=SECONDS)
    with locked():

        def ask():
            with pytest.raises(ServiceUnavailable, match="locked") as caught:
                caller.notifications.need_row()
            return caught.value

        waiting = [eventlet.spawn(ask) for _ in range(CALLS)]
        eventlet.sleep()  # they are published before the next call
        assert caller.notifications.ping() == "pong"
        # None of them is a call without a reply: the circuit breaker of the caller stays closed.
        assert [one.wait().code for one in waiting] == ["SERVICE_UNAVAILABLE"] * CALLS
        # From now on they wait for a shorter time. Otherwise the last ones would wait for longer than SECONDS.
        more = [eventlet.spawn(ask) for _ in range(5 * CALLS)]
        assert caller.notifications.ping() == "pong"
        assert [one.wait().code for one in more] == ["SERVICE_UNAVAILABLE"] * len(more)
