"""What is counted in Redis is counted once for all replicas, to the last request, and never holds anybody up."""

import os
import signal
import time

import eventlet
import pytest
import redis
from nameko import config
from nameko.extensions import DependencyProvider

from extensions.cache.rate_limits import Policy, RateLimits, _key
from extensions.operations import operations
from extensions.storage.unit_of_work import Work
from notifications.models import Base
from tests.support import eventually


class Limits(DependencyProvider):
    limits = RateLimits()

    def get_dependency(self, _worker_ctx):
        return self.limits


class Limited(operations.Operations):
    """Has limits, in the place of notifications."""

    name = "notifications"
    work = Work(Base)
    limits = Limits()


@pytest.fixture
def replicas(run_service):
    """The limits of two processes, as good as."""
    return [run_service(Limited).shared_extensions[RateLimits] for _ in range(2)]


@pytest.fixture
def limits(replicas):
    return replicas[0]


def client():
    return redis.Redis.from_url(config["REDIS_URL"], decode_responses=True)


def test_the_quota_is_there_at_once_and_no_more(limits):
    policy = Policy("few", 3, 3600)
    levels = [limits.spend((policy, "me"))[0] for _ in range(4)]
    assert [level.left for level in levels] == [2, 1, 0, 0]
    assert [bool(level.retry_after) for level in levels] == [False, False, False, True]
    assert 1190 <= levels[-1].retry_after <= 1200
    assert [round(level.whole_in, -1) for level in levels] == [1200, 2400, 3600, 3600]
    assert limits.spend((policy, "somebody else"))[0].left == 2


def test_it_comes_back_evenly(limits):
    policy = Policy("quick", 2, 1)
    while not (refused := limits.spend((policy, "me"))[0]).retry_after:
        pass
    assert refused.retry_after == 1
    began = time.monotonic()
    eventually(lambda: not limits.spend((policy, "me"))[0].retry_after)
    assert time.monotonic() - began < 0.9  # one of two, and not both after the whole second


def test_replicas_count_together_to_the_last_one(replicas):
    policy = Policy("shared", 170, 3600)

    def spend(number):
        return not replicas[number % 2].spend((policy, "me"))[0].retry_after

    assert sum(eventlet.GreenPool(200).imap(spend, range(200))) == 170


def test_all_counters_or_none(limits):
    wide, narrow = Policy("wide", 10, 3600), Policy("narrow", 1, 3600)
    limits.spend((wide, "me"), (narrow, "me"))
    for _ in range(3):
        levels = limits.spend((wide, "me"), (narrow, "me"))
        assert [bool(level.retry_after) for level in levels] == [False, True]
    assert limits.look((wide, "me"))[0].left == 9


def test_looking_spends_nothing_and_forgetting_begins_anew(limits):
    policy = Policy("few", 2, 3600)
    assert limits.look((policy, "me"))[0].left == 2
    limits.spend((policy, "me"))
    assert [limits.look((policy, "me"))[0].left for _ in range(3)] == [1, 1, 1]
    limits.spend((policy, "me"))
    assert limits.look((policy, "me"))[0].retry_after
    limits.forget(policy, "me")
    assert limits.look((policy, "me"))[0].left == 2


def test_a_counter_is_forgotten_when_it_is_whole_and_tells_nobody_whose_it_is(limits):
    limits.spend((Policy("few", 2, 100), "ayse@example.com"))
    (key,) = client().keys("limits:*")
    assert "ayse" not in key
    assert 45_000 < client().pttl(key) <= 50_000


@pytest.mark.parametrize("foreign", ["text", "", "9" * 30, "-5", "nan"])
def test_what_is_no_counter_is_none(limits, foreign):
    policy = Policy("few", 2, 2)
    client().set(_key(policy, "me"), foreign)
    eventually(lambda: limits.spend((policy, "me"))[0].retry_after == 0, timeout=3)


def test_another_kind_of_thing_gives_way(limits):
    policy = Policy("few", 2, 3600)
    client().hset(_key(policy, "me"), "version", "1")
    assert limits.spend((policy, "me"))[0].left == 1


def test_without_redis_nothing_is_limited_and_nobody_waits_for_long(limits, servers):
    policy = Policy("few", 1, 3600)
    limits.spend((policy, "me"))
    os.kill(servers.redis.pid, signal.SIGSTOP)  # it is there, and does not answer: the worst there is
    try:
        began = time.monotonic()
        assert limits.spend((policy, "me")) == []
        assert time.monotonic() - began < 3
        began = time.monotonic()
        spent = [limits.spend((policy, "me")) for _ in range(1000)]
        assert spent.count([]) == 1000
        assert limits.look((policy, "me")) == []
        assert time.monotonic() - began < 1.5  # known to be away: at most one of them has tried again
    finally:
        os.kill(servers.redis.pid, signal.SIGCONT)
    eventually(lambda: limits.spend((policy, "me")) and limits.spend((policy, "me"))[0].retry_after, timeout=10)


def test_while_it_is_away_only_one_asks_whether_it_is_back(limits, servers):
    policy = Policy("few", 1, 3600)
    os.kill(servers.redis.pid, signal.SIGSTOP)
    try:
        assert limits.spend((policy, "me")) == []
        eventually(lambda: time.monotonic() >= limits.connection._rest_until, timeout=5)
        began = time.monotonic()
        waits = list(eventlet.GreenPool(20).imap(lambda _: timed(limits, policy, began), range(20)))
        assert sum(wait > 0.5 for wait in waits) == 1
    finally:
        os.kill(servers.redis.pid, signal.SIGCONT)


def timed(limits, policy, began):
    limits.spend((policy, "me"))
    return time.monotonic() - began


def test_a_cache_that_is_full_gives_up_pages_before_counters(limits):
    """Whoever guesses passwords could otherwise ask for so many pages that what was counted is forgotten."""
    policy, server = Policy("guesses", 10, 900), client()
    for _ in range(10):
        limits.spend((policy, "me"))
    bound = server.config_get("maxmemory")["maxmemory"]
    server.config_set("maxmemory", server.info("memory")["used_memory"] + 4_000_000)
    try:
        before = server.info("stats")["evicted_keys"]
        for number in range(300):
            limits.connection.store(f"notifications:page:{number}", "x" * 100_000, version=1, seconds=60)
        assert server.info("stats")["evicted_keys"] - before > 200
        assert limits.look((policy, "me"))[0].retry_after > 0
        without_end = [key for key in server.scan_iter() if server.ttl(key) == -1]
        assert without_end == []  # else it would never make room
    finally:
        server.config_set("maxmemory", bound)
