"""Redis does not respond, or slowly: one call finds out, and no other waits for it until it is back."""

import os
import signal
from contextlib import contextmanager

import eventlet
import pytest
from nameko import config

from extensions.cache.connection import RedisConnection
from extensions.observability.traces import RedisWait, Trace, current_trace, use_trace
from extensions.operations import operations
from extensions.rpc.client import PendingCalls
from extensions.rpc.server import rpc
from extensions.storage.unit_of_work import Work
from notifications.models import Base
from qa.chaos.proxy import CACHE
from tests.service.extensions.cache.test_versioned_cache import OLD, Shelf, link  # noqa: F401  (a fixture)
from tests.service.extensions.toy import Calls
from tests.stopwatch import Stopwatch
from tests.support import TEST_TIMEOUT_SECONDS, eventually

PATIENCE_SECONDS = 0.03


@pytest.fixture
def connection(run_service):
    """The connection of a service with the patience of production, after its first command."""
    with config.patch({"REDIS_TIMEOUT_MS": PATIENCE_SECONDS * 1000}):
        connection = run_service(Shelf).shared_extensions[RedisConnection]
    eventually(lambda: is_asked(connection))
    return connection


@contextmanager
def frozen(redis):
    os.kill(redis.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(redis.pid, signal.SIGCONT)


def is_asked(connection):
    """Whether a call is sent to Redis, and Redis responds."""
    return bool(connection.attempt(lambda client: client.ping()))


def test_a_frozen_redis_costs_one_short_wait_and_is_not_asked_until_it_is_back(connection, servers):
    sent = []
    with frozen(servers.redis):
        began = Stopwatch()
        for _ in range(50):
            assert connection.attempt(lambda client: sent.append(1) or client.ping()) is None
        assert sent == [1]
        assert began.seconds < 10 * PATIENCE_SECONDS
    eventually(lambda: is_asked(connection))


def test_concurrent_calls_to_a_frozen_redis_wait_at_the_same_time(connection, servers):
    calls = {
        "an entry": lambda: connection.entry("notifications:thing:a"),
        "a generation": lambda: connection.generation("notifications:thing:generation"),
        "an invalidation": lambda: connection.invalidate({"notifications:thing:b": 2}, 60),
        "a write": lambda: connection.store("notifications:thing:a", "{}", 1, 60),
    }
    with frozen(servers.redis):
        began = Stopwatch()
        for one in [eventlet.spawn(call) for call in calls.values() for _ in range(10)]:
            assert one.wait() is None
        assert began.seconds < 25 * PATIENCE_SECONDS  # one after the other: 40 times
    eventually(lambda: is_asked(connection))


def test_a_slow_redis_is_not_asked_until_it_is_fast_again(link, connection):  # noqa: F811
    # Much longer than the patience: a process that a busy machine stops for longer than the delay sees no delay.
    with link.fault([CACHE], "delay", seconds=20 * PATIENCE_SECONDS):
        assert not is_asked(connection)
        before = link.hits([CACHE])
        link.await_hits([CACHE], before + 12, TEST_TIMEOUT_SECONDS)  # several probes, each with a few packets
        assert not is_asked(connection)
    eventually(lambda: is_asked(connection))


@pytest.fixture
def without_time():
    """The current request has waited for Redis for as long as it may."""
    with use_trace(Trace(redis_wait=RedisWait(TEST_TIMEOUT_SECONDS))):
        yield


def test_a_request_that_has_waited_long_enough_goes_on_without_redis_and_others_ask_it(connection, without_time):
    sent = []
    assert connection.attempt(lambda client: sent.append(1) or client.ping()) is None
    assert not sent
    assert not connection._is_unavailable
    assert eventlet.spawn(is_asked, connection).wait()


def test_its_invalidations_are_sent_without_it(connection, without_time):
    def entry():
        return connection.entry("notifications:thing:a")

    eventlet.spawn(connection.store, "notifications:thing:a", '{"price": "1.00"}', 1, 60).wait()
    assert eventlet.spawn(entry).wait()
    connection.invalidate({"notifications:thing:a": 2}, 60)
    eventually(lambda: not connection._pending)
    assert eventlet.spawn(entry).wait() is None


class Waiter(operations.Operations):
    """Tells how long its caller has waited for Redis."""

    name = "notifications"
    work = Work(Base)
    call = Calls()

    @rpc(transaction=False)
    def waited(self):
        return current_trace().redis_wait.seconds


@pytest.mark.parametrize("seconds", [0.0, 0.06])
def test_a_called_service_waits_only_for_the_rest(run_service, seconds):
    calls = run_service(Waiter).shared_extensions[PendingCalls]
    with use_trace(Trace(redis_wait=RedisWait(seconds))):
        assert calls.call("notifications", "waited", (), {}, TEST_TIMEOUT_SECONDS) == seconds


def test_an_invalidation_reaches_a_slow_redis(link, connection, caller):  # noqa: F811
    caller.notifications.store("a", OLD, 1)
    with link.fault([CACHE], "delay", seconds=3 * PATIENCE_SECONDS):
        caller.notifications.invalidate("a", 2)
        eventually(lambda: not connection._pending)
    eventually(lambda: is_asked(connection))
    assert caller.notifications.get("a")[0] is None
