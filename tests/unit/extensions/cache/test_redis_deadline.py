"""The deadline of commands to Redis. The other end of a socket pair stands for Redis."""

from contextlib import ExitStack

import eventlet
import pytest
from eventlet import patcher
from eventlet.green import socket

from extensions.cache import redis_deadline
from extensions.cache.redis_deadline import Deadline, NoTimeLeft, TooSlow, charged, of_request
from extensions.observability.traces import RedisWait, Trace, use_trace
from tests.stopwatch import Stopwatch

SECONDS = 0.03
block = patcher.original("time").sleep
"""Sleeps like a computation: no other greenlet runs meanwhile."""


@pytest.fixture
def ends():
    ours, other = socket.socketpair()
    yield ours, other
    ours.close()
    other.close()


def test_a_response_that_does_not_come_ends_the_block(ends):
    with pytest.raises(TooSlow), Deadline(SECONDS):
        ends[0].recv(1)


def test_a_response_in_time_ends_nothing(ends):
    with Deadline(SECONDS):
        ends[1].send(b"x")
        assert ends[0].recv(1) == b"x"
    eventlet.sleep(2 * SECONDS)


@pytest.mark.parametrize("extensions", [0, 3])
def test_a_response_that_arrived_while_the_process_was_busy_counts(ends, monkeypatch, extensions):
    monkeypatch.setattr(redis_deadline, "MAX_EXTENSIONS", extensions)

    def respond_and_compute():
        ends[1].send(b"x")
        block(3 * SECONDS)

    eventlet.spawn(respond_and_compute)
    with Deadline(SECONDS):
        assert ends[0].recv(1) == b"x"


def test_a_busy_process_extends_it_but_not_without_end(ends):
    blocked = []

    def compute():
        while True:
            block(SECONDS + 2 * redis_deadline.LATE_SECONDS)
            blocked.append(1)
            eventlet.sleep(0)

    computing = eventlet.spawn(compute)
    with pytest.raises(TooSlow), Deadline(SECONDS):
        ends[0].recv(1)
    computing.kill()
    assert redis_deadline.MAX_EXTENSIONS < len(blocked) <= 3 * (redis_deadline.MAX_EXTENSIONS + 1)


def test_a_process_that_was_busy_briefly_extends_it_by_a_part(ends):
    eventlet.spawn(block, 1.0 + 5 * redis_deadline.LATE_SECONDS)
    waited = Stopwatch()
    with pytest.raises(TooSlow), Deadline(1.0):
        ends[0].recv(1)
    assert waited.seconds < 1.7  # not one more second


@pytest.fixture
def request_waited():
    """`request_waited(seconds)` begins a request that has waited for Redis so long."""

    def begin(seconds):
        waited = RedisWait(seconds)
        stack.enter_context(use_trace(Trace(redis_wait=waited)))
        return waited

    with ExitStack() as stack:
        yield begin


def test_all_commands_of_a_request_share_its_time(ends, request_waited):
    request_waited(0.0)
    with pytest.raises(TooSlow), of_request(SECONDS):
        ends[0].recv(1)
    with pytest.raises(NoTimeLeft), of_request(SECONDS):
        pytest.fail("no command is sent")


def test_a_wait_before_leaves_the_rest(ends, request_waited):
    request_waited(5.0)
    waited = Stopwatch()
    with pytest.raises(TooSlow), of_request(7.6):  # a third or more is left, so this is a failure of Redis
        ends[0].recv(1)
    assert waited.wall >= 2.5
    assert waited.seconds < 7


def test_a_failure_after_little_time_says_nothing_about_redis(ends, request_waited):
    request_waited(0.9)
    with pytest.raises(NoTimeLeft), of_request(1.0):
        ends[0].recv(1)


def test_what_is_no_request_has_the_whole_time_for_each_block(ends):
    for _ in range(2):
        with pytest.raises(TooSlow), of_request(SECONDS):
            ends[0].recv(1)


def test_waits_at_the_same_time_count_once_and_short_ones_do_not(request_waited):
    waited, pool = request_waited(0.0), eventlet.GreenPool()

    def wait(trace):
        with use_trace(trace), charged():
            eventlet.sleep(0.5)

    list(pool.imap(wait, [Trace(redis_wait=waited)] * 10))
    assert 0.5 <= waited.seconds < 2.5
    before = waited.seconds
    with charged():
        pass
    assert waited.seconds == before
