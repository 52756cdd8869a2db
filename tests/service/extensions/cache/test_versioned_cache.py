"""The cache: never older than the last invalidation, and harmless while Redis is unavailable."""

import os
import signal
import time

import eventlet
import pytest
import redis
import sqlalchemy
from nameko import config

from contracts.errors import UpstreamTimeout
from extensions.cache.connection import MAX_PAUSE_SECONDS
from extensions.cache.local_copies import LocalCopiesProvider
from extensions.cache.versioned_cache import Cache
from extensions.operations import operations
from extensions.rpc.server import rpc
from extensions.storage.unit_of_work import Work
from notifications.models import Base
from qa.chaos.proxy import CACHE, Proxies
from tests.support import eventually

OLD, NEW = {"price": "1.00"}, {"price": "2.00"}
ASKED, OWNED = [], {}
DATABASE = "NOTIFICATIONS_DATABASE_URL"
READ = []


class Shelf:
    """A service with a cache and no database, so that the results depend on Redis only."""

    name = "notifications"
    cache = Cache()
    copies = LocalCopiesProvider("notifications", "thing")

    @rpc(transaction=False)
    def get(self, key):
        began = time.monotonic()
        return [self.cache.get("thing", key), time.monotonic() - began]

    @rpc(transaction=False)
    def get_at_once(self, keys):
        return list(eventlet.GreenPool().imap(lambda key: self.cache.get("thing", key), keys))

    @rpc(transaction=False)
    def store(self, key, value, version):
        self.cache.store("thing", key, value, version)

    @rpc(transaction=False)
    def invalidate(self, key, version):
        self.cache.invalidate("thing", {key: version})

    @rpc(transaction=False)
    def generation(self):
        return self.cache.generation("thing")

    @rpc(transaction=False)
    def next_generation(self):
        self.cache.next_generation("thing")

    @rpc(transaction=False)
    def copy(self, keys):
        return self.copies.get(keys, lambda missing: {key: self._load(key) for key in missing if key != "unknown"})

    def _load(self, key):
        ASKED.append(key)
        return OWNED["value"]


class Owner(operations.Operations):
    """A service that changes data and renews its generation; the generation is also read during the commit."""

    name = "notifications"
    work = Work(Base)
    cache = Cache()

    @rpc
    def change(self):
        self.work.session.execute(sqlalchemy.text("INSERT INTO timers VALUES ('changed', now())"))
        self.work.around_commit(self.cache.next_generation, "thing")
        self.work.around_commit(lambda: READ.append(self.cache.generation("thing")))

    @rpc(transaction=False)
    def generation(self):
        return self.cache.generation("thing")


@pytest.fixture
def shelf(run_service, caller):
    ASKED.clear()
    OWNED["value"] = OLD
    run_service(Shelf)
    return caller.notifications


@pytest.fixture
def outage(servers):
    """Redis is stopped until `outage()` is called."""
    servers.redis.stop()
    yield servers.redis.start
    servers.redis.start()


@pytest.fixture
def link(servers, monkeypatch):
    """A proxy before Redis and one before a database, for services that are started afterwards."""
    proxies = Proxies()
    addresses = proxies.start(servers.addresses())
    monkeypatch.setitem(config.data, CACHE, addresses[CACHE])
    monkeypatch.setitem(config.data, "DB_URIS", {"notifications:Base": addresses[DATABASE]})
    yield proxies
    proxies.stop()


def get(shelf, key="a"):
    return shelf.get(key)[0]


def test_a_stored_value_is_found_under_its_key_until_it_is_invalidated(shelf):
    assert get(shelf) is None
    shelf.store("a", OLD, 1)
    assert get(shelf) == OLD
    assert get(shelf, "b") is None
    shelf.invalidate("a", 2)
    assert get(shelf) is None


def test_entries_have_the_services_prefix_and_expire(shelf):
    shelf.store("a", OLD, 1)
    client = redis.Redis.from_url(config["REDIS_URL"])
    assert client.keys() == [b"notifications:thing:a"]
    assert 0 < client.ttl("notifications:thing:a") <= int(config["CACHE_SECONDS"])


@pytest.mark.parametrize("versions", [(1, 2), (9, 10)])
def test_an_older_version_never_overwrites_a_newer_one(shelf, versions):
    old, new = versions
    shelf.store("a", NEW, new)
    shelf.store("a", OLD, old)
    assert get(shelf) == NEW
    shelf.invalidate("a", old)  # a late invalidation
    assert get(shelf) == NEW


def test_a_reader_that_began_before_the_change_cannot_store_what_it_read(shelf):
    shelf.store("a", OLD, 1)
    shelf.invalidate("a", 2)
    shelf.store("a", OLD, 1)
    assert get(shelf) is None
    shelf.store("a", NEW, 2)
    assert get(shelf) == NEW


def test_without_redis_reads_miss_at_once_and_writes_are_no_error(shelf, outage):
    shelf.store("a", OLD, 1)
    shelf.invalidate("b", 1)
    for _ in range(20):
        value, seconds = shelf.get("a")
        assert value is None
        assert seconds < 1.0
    outage()
    eventually(lambda: shelf.store("a", NEW, 2) or get(shelf) == NEW, timeout=MAX_PAUSE_SECONDS + 5)


def test_a_restarted_redis_is_used_again(shelf, servers):
    shelf.store("a", OLD, 1)
    servers.redis.restart()  # the pool holds a dead connection now
    assert get(shelf) is None
    eventually(lambda: shelf.store("a", NEW, 2) or get(shelf) == NEW, timeout=MAX_PAUSE_SECONDS + 5)


def test_a_pending_invalidation_is_sent_before_anything_is_read(link, shelf, servers):
    shelf.store("a", OLD, 1)
    with link.fault([CACHE], "refuse"):  # Redis keeps the old value
        shelf.invalidate("a", 2)
    client = redis.Redis.from_url(servers.addresses()[CACHE])
    eventually(lambda: client.hget("notifications:thing:a", "version") == b"2")  # without a read by this process
    assert get(shelf) is None
    shelf.store("a", OLD, 1)
    assert get(shelf) is None


def test_an_invalidation_that_could_not_be_sent_stays_pending(link, shelf, servers):
    client = redis.Redis.from_url(servers.addresses()[CACHE])
    with link.fault([CACHE], "stall"):
        shelf.invalidate("a", 2)
        servers.redis.restart()  # so that nothing that was sent arrives
        client.hset("notifications:thing:a", mapping={"version": 1, "value": '{"price": "1.00"}'})
    eventually(lambda: client.hget("notifications:thing:a", "version") == b"2")  # without a read by this process


FOREIGN = {
    "a string": lambda client, key: client.set(key, "x"),
    "a list": lambda client, key: client.rpush(key, "x"),
    "a version that is no number": lambda client, key: client.hset(key, mapping={"version": "x", "value": "{}"}),
    "a value that is no JSON": lambda client, key: client.hset(key, mapping={"version": 1, "value": "{"}),
    "a value that is no object": lambda client, key: client.hset(key, mapping={"version": 1, "value": "[1]"}),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("touch", ["get", "store", "invalidate"])
def test_foreign_content_of_a_key_is_removed_and_affects_no_other_key(shelf, kind, touch):
    client = redis.Redis.from_url(config["REDIS_URL"])
    shelf.store("b", OLD, 1)
    FOREIGN[kind](client, "notifications:thing:a")
    {
        "get": lambda: get(shelf),
        "store": lambda: shelf.store("a", NEW, 2),
        "invalidate": lambda: shelf.invalidate("a", 2),
    }[touch]()
    assert get(shelf, "b") == OLD
    shelf.invalidate("b", 2)
    assert (
        client.hget("notifications:thing:b", "value") == b""
    )  # immediately, because other processes read the same entry
    shelf.store("a", NEW, 2)
    assert get(shelf) == NEW


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_content_of_a_key_affects_no_other_key_of_the_same_batch(shelf, kind):
    client = redis.Redis.from_url(config["REDIS_URL"])
    shelf.store("b", OLD, 1)
    shelf.store("c", NEW, 1)
    FOREIGN[kind](client, "notifications:thing:a")
    # Only a write reads the version.
    of_a = {} if kind == "a version that is no number" else None
    assert shelf.get_at_once(["b", "a", "c", "b", "unknown"]) == [OLD, of_a, NEW, OLD, None]
    assert client.exists("notifications:thing:a") == (of_a is not None)


@pytest.mark.parametrize("kind", ["a string", "a list"])
@pytest.mark.parametrize("touch", ["generation", "next_generation"])
def test_a_generation_with_foreign_content_is_replaced(shelf, kind, touch):
    client = redis.Redis.from_url(config["REDIS_URL"])
    FOREIGN[kind](client, "notifications:thing:generation")
    getattr(shelf, touch)()
    shelf.next_generation()
    assert shelf.generation() == shelf.generation() not in {"x", None}
    shelf.store("b", OLD, 1)
    assert get(shelf, "b") == OLD


def test_a_copy_is_used_until_the_generation_changes(shelf):
    for _ in range(3):
        assert shelf.copy(["a", "b"]) == {"a": OLD, "b": OLD}
    assert sorted(ASKED) == ["a", "b"]
    assert shelf.copy(["b", "c", "unknown"]) == {"b": OLD, "c": OLD}
    OWNED["value"] = NEW
    assert shelf.copy(["a"]) == {"a": OLD}
    shelf.next_generation()
    assert shelf.copy(["a"]) == {"a": NEW}


def test_a_copy_becomes_invalid_when_redis_loses_all_its_data(shelf):
    client = redis.Redis.from_url(config["REDIS_URL"])
    shelf.next_generation()
    assert shelf.copy(["a"]) == {"a": OLD}
    OWNED["value"] = NEW
    client.flushall()
    shelf.next_generation()  # the same number of times as before
    assert shelf.copy(["a"]) == {"a": NEW}


def test_without_redis_every_read_calls_the_owner(shelf, outage):
    for value in (OLD, NEW):
        OWNED["value"] = value
        assert shelf.copy(["a"]) == {"a": value}


def test_a_commit_with_an_unknown_outcome_invalidates_what_was_read_before_it(link, run_service, caller):
    READ.clear()
    run_service(Owner)
    with link.fault([DATABASE], "lostreply", count=100), pytest.raises(UpstreamTimeout):  # timers commit as well
        caller.notifications.change()
    assert caller.notifications.generation() != READ[0]


def test_a_killed_reader_of_a_batch_leaves_no_result_to_later_readers(servers, run_service):
    cache = next(each for each in run_service(Shelf).dependencies if isinstance(each, Cache)).cache
    connections = cache._connection._client.connection_pool._in_use_connections
    for key, value in (("a", OLD), ("b", NEW)):
        cache.store("thing", key, value, 1)
    for key, value in (("b", NEW), ("a", OLD)) * 3:
        os.kill(servers.redis.pid, signal.SIGSTOP)
        try:
            asking = [eventlet.spawn(cache.get, "thing", key) for key in ("a", "b", "a")]
            eventually(lambda: connections)  # the request was sent, and Redis does not respond
            asking[0].kill()
            later = [eventlet.spawn(cache.get, "thing", key), eventlet.spawn(cache.get, "thing", "unknown")]
            with eventlet.Timeout(0.5):
                assert [one.wait() for one in asking[1:]] == [None, None]
        finally:
            os.kill(servers.redis.pid, signal.SIGCONT)
        assert [one.wait() for one in later] == [value, None]
