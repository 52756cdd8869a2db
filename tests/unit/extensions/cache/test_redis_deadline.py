"""The deadline of commands to Redis. The other end of a socket pair stands for Redis."""

import eventlet
import pytest
from eventlet import patcher
from eventlet.green import socket

from extensions.cache import redis_deadline
from extensions.cache.redis_deadline import Deadline, TooSlow

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
