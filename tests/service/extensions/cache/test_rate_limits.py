"""Rate limits: exact for all instances together, and never a reason for a request to hang."""

import os
import signal

import eventlet
import pytest
import redis
from nameko import config
from nameko.extensions import DependencyProvider

from extensions.cache.rate_limits import Policy, RateLimits, _key
from extensions.operations import operations
from extensions.storage.unit_of_work import Work
from notifications.models import Base
from tests.stopwatch import Stopwatch
from tests.support import eventually


class Limits(DependencyProvider):
    limits = RateLimits()

    def get_dependency(self, _worker_ctx):
        return self.limits


class Limited(operations.Operations):
    """A service with rate limits, in the place of notifications."""

    name = "notifications"
    work = Work(Base)
    limits = Limits()


@pytest.fixture
def instances(run_service):
    """The rate limits of two containers, which stand for two processes."""
    return [run_service(Limited).shared_extensions[RateLimits] for _ in range(2)]


@pytest.fixture
def limits(instances):
    return instances[0]


def client():
    return redis.Redis.from_url(config["REDIS_URL"], decode_responses=True)


def test_the_whole_quota_can_be_consumed_at_once_and_no_more(limits):
    policy = Policy("few", 3, 3600)
    quotas = [limits.consume((policy, "me"))[0] for _ in range(4)]
    assert [quota.remaining for quota in quotas] == [2, 1, 0, 0]
    assert [bool(quota.retry_after) for quota in quotas] == [False, False, False, True]
    assert 1190 <= quotas[-1].retry_after <= 1200
    assert [round(quota.reset_after, -1) for quota in quotas] == [1200, 2400, 3600, 3600]
    assert limits.consume((policy, "somebody else"))[0].remaining == 2


def test_the_quota_is_refilled_evenly(limits):
    policy = Policy("quick", 2, 1)
    while not (refused := limits.consume((policy, "me"))[0]).retry_after:
        pass
    assert refused.retry_after == 1
    began = Stopwatch()
    eventually(lambda: not limits.consume((policy, "me"))[0].retry_after)
    assert began.seconds < 0.9  # one of two, and not both after the whole second


def test_instances_share_an_exact_count(instances):
    policy = Policy("shared", 170, 3600)

    def consume(number):
        return not instances[number % 2].consume((policy, "me"))[0].retry_after

    assert sum(eventlet.GreenPool(200).imap(consume, range(200))) == 170


def test_all_counters_are_consumed_or_none(limits):
    wide, narrow = Policy("wide", 10, 3600), Policy("narrow", 1, 3600)
    limits.consume((wide, "me"), (narrow, "me"))
    for _ in range(3):
        quotas = limits.consume((wide, "me"), (narrow, "me"))
        assert [bool(quota.retry_after) for quota in quotas] == [False, True]
    assert limits.peek((wide, "me"))[0].remaining == 9


def test_peek_consumes_nothing_and_reset_restores_the_quota(limits):
    policy = Policy("few", 2, 3600)
    assert limits.peek((policy, "me"))[0].remaining == 2
    limits.consume((policy, "me"))
    assert [limits.peek((policy, "me"))[0].remaining for _ in range(3)] == [1, 1, 1]
    limits.consume((policy, "me"))
    assert limits.peek((policy, "me"))[0].retry_after
    limits.reset(policy, "me")
    assert limits.peek((policy, "me"))[0].remaining == 2


def test_a_counter_expires_when_its_quota_is_whole_and_does_not_reveal_its_subject(limits):
    limits.consume((Policy("few", 2, 100), "ayse@example.com"))
    (key,) = client().keys("limits:*")
    assert "ayse" not in key
    assert 45_000 < client().pttl(key) <= 50_000


@pytest.mark.parametrize("foreign", ["text", "", "9" * 30, "-5", "nan"])
def test_a_key_that_holds_no_counter_is_replaced(limits, foreign):
    policy = Policy("few", 2, 2)
    client().set(_key(policy, "me"), foreign)
    eventually(lambda: limits.consume((policy, "me"))[0].retry_after == 0, timeout=3)


def test_a_key_of_another_type_is_replaced(limits):
    policy = Policy("few", 2, 3600)
    client().hset(_key(policy, "me"), "version", "1")
    assert limits.consume((policy, "me"))[0].remaining == 1


def test_without_redis_nothing_is_limited_and_no_call_waits_long(limits, servers, monkeypatch):
    monkeypatch.setattr(limits.connection, "_deadline_seconds", 1.0)
    policy = Policy("few", 1, 3600)
    limits.consume((policy, "me"))
    os.kill(servers.redis.pid, signal.SIGSTOP)  # the worst case: it accepts connections and does not respond
    try:
        began = Stopwatch()
        assert limits.consume((policy, "me")) == []
        assert began.seconds < float(config["REDIS_TIMEOUT_MS"]) / 1000 + 2
        began = Stopwatch()
        spent = [limits.consume((policy, "me")) for _ in range(1000)]
        assert spent.count([]) == 1000
        assert limits.peek((policy, "me")) == []
        assert began.seconds < 1.5  # known to be unavailable: no call waits
    finally:
        os.kill(servers.redis.pid, signal.SIGCONT)
    eventually(lambda: limits.consume((policy, "me")) and limits.consume((policy, "me"))[0].retry_after, timeout=10)


def test_a_full_redis_evicts_cached_pages_before_counters(limits):
    """Otherwise an attacker who guesses passwords could request so many pages that the counters are evicted."""
    policy, server = Policy("guesses", 10, 900), client()
    for _ in range(10):
        limits.consume((policy, "me"))
    bound = server.config_get("maxmemory")["maxmemory"]
    server.config_set("maxmemory", server.info("memory")["used_memory"] + 4_000_000)
    try:
        before = server.info("stats")["evicted_keys"]
        for number in range(300):
            limits.connection.store(f"notifications:page:{number}", "x" * 100_000, version=1, seconds=60)
        assert server.info("stats")["evicted_keys"] - before > 200
        assert limits.peek((policy, "me"))[0].retry_after > 0
        without_end = [key for key in server.scan_iter() if server.ttl(key) == -1]
        assert without_end == []  # a key without an expiry would never be evicted
    finally:
        server.config_set("maxmemory", bound)
