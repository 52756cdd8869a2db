"""Each service's user of Redis has the permissions that its code needs, and no others."""

import re

import nameko
import pytest
import redis
from nameko.extensions import DependencyProvider
from redis.exceptions import NoPermissionError, ResponseError

from deploy.redis_users import LIMITS_OF_REQUESTS, RULES
from extensions.cache.connection import RedisConnection
from extensions.cache.entries import PUT_IF_NEWER
from extensions.cache.rate_limits import CONSUME, Policy, RateLimits
from extensions.cache.versioned_cache import Cache, VersionedCache
from extensions.runtime.addresses import redis_variable

ENTRY = {"price": "1.00"}
# One key of each existing kind, and one of an unknown kind.
PRODUCT, PRODUCTS, GENERATION = "catalog:product:1", "catalog:products:page", "catalog:products:generation"
ORDER, ORDERS = "orders:order:1", "orders:other:1"
FAILURES, REQUESTS = "limits:failed_logins:1", tuple(f"limits:{name}:1" for name in LIMITS_OF_REQUESTS)
KEYS = {PRODUCT, PRODUCTS, GENERATION, ORDER, ORDERS, FAILURES, *REQUESTS, "limits:other:1", "inventory:stock:1"}
CHANGES = {
    "users": {FAILURES},
    "catalog": {PRODUCT, PRODUCTS, GENERATION},
    "orders": {ORDER, ORDERS, GENERATION},
    "gateway": set(REQUESTS),
}
READS = {**CHANGES, "gateway": {*REQUESTS, PRODUCT, ORDER}}


class Limits(DependencyProvider):
    limits = RateLimits()


@pytest.fixture(params=RULES)
def me(request):
    """A service whose password is known to an attacker."""
    return request.param


@pytest.fixture
def address(environment):
    """The address of Redis for a service: `address("orders")`."""
    return lambda service: environment[redis_variable(service)]


@pytest.fixture
def mine(address, me):
    with redis.Redis.from_url(address(me)) as client:
        yield client


@pytest.fixture
def everything(environment):
    with redis.Redis.from_url(environment["REDIS_URL"]) as client:
        client.flushall()
        yield client
        client.flushall()


@pytest.fixture
def as_service(address, run_service, everything):
    """Return (connection, limits) of a process of this service that has no other dependencies."""

    def start(service):
        body = {"name": service, "cache": Cache(), "limits": Limits()}
        with nameko.config.patch({"REDIS_URLS": {service: address(service)}}):
            extensions = run_service(type("Process", (), body)).shared_extensions
        return extensions[RedisConnection], extensions[RateLimits]

    return start


# What a script gets for a command that its user may not execute: Redis 7 and Redis 8.
REFUSALS = "The user executing the script can't", "ACL failure in script"


def is_let_through(call, *arguments):
    """Check whether Redis permits a command. Other errors of the command are ignored."""
    try:
        call(*arguments)
    except NoPermissionError:
        return False
    except ResponseError as error:
        return not any(refusal in str(error) for refusal in REFUSALS)
    return True


def test_every_key_is_read_and_changed_only_by_its_services(mine, me, everything):
    assert {key for key in KEYS if is_let_through(mine.get, key)} == READS.get(me, set())
    assert {key for key in KEYS if is_let_through(mine.hget, key, "value")} == READS.get(me, set())
    assert {key for key in KEYS if is_let_through(mine.set, key, "1")} == CHANGES.get(me, set())
    assert {key for key in KEYS if is_let_through(mine.unlink, key)} == CHANGES.get(me, set())


def test_a_script_has_only_the_permissions_of_its_user(mine, me, everything):
    changes = CHANGES.get(me, set())
    anything = "return redis.call('SET', 'PLACE', '1')"
    assert {key for key in KEYS if is_let_through(mine.eval, anything.replace("PLACE", key), 0)} == changes
    if me in {"catalog", "orders"}:
        assert {key for key in KEYS if is_let_through(mine.eval, PUT_IF_NEWER, 1, key, 1, "", 60)} == changes
    elif changes:
        assert {key for key in KEYS if is_let_through(mine.eval, CONSUME, 1, key, 1, 10, 60)} == changes


@pytest.mark.parametrize(
    "command",
    ["FLUSHALL", "FLUSHDB", "KEYS *", "CONFIG GET *", "CONFIG SET dir /tmp", "ACL LIST", "ACL SETUSER x on", "SAVE",
     "MONITOR", "CLIENT LIST", "SHUTDOWN NOSAVE", "SWAPDB 0 1", "REPLICAOF NO ONE", "PUBLISH a b",
     "RANDOMKEY", "DBSIZE", "INFO", "MODULE LIST", "FUNCTION LIST", "SCRIPT FLUSH", "SELECT 1"],
)  # fmt: skip
def test_no_service_may_administer_redis(mine, command):
    assert not is_let_through(mine.execute_command, *command.split())


def test_every_service_may_ping_and_a_wrong_password_is_refused(mine, me, address):
    assert mine.ping()
    wrong = re.sub(":[^:]*@", ":guess@", address(me))
    with redis.Redis.from_url(wrong) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()


@pytest.mark.parametrize("service", ["catalog", "orders"])
def test_an_owner_may_do_everything_that_its_cache_needs(as_service, service):
    connection, _ = as_service(service)
    cache = VersionedCache(connection, service, 60)
    cache.store("thing", "1", ENTRY, 1)
    assert cache.get("thing", "1") == ENTRY
    cache.invalidate("thing", {"1": 2})
    assert cache.get("thing", "1") is None
    first = cache.generation("things")
    cache.next_generation("things")
    assert None not in {first, cache.generation("things")}
    assert first != cache.generation("things")
    connection._client.set(f"{service}:thing:odd", "no entry")
    assert cache.get("thing", "odd") is None
    assert connection._client.get(f"{service}:thing:odd") is None  # the invalid entry was removed
    connection._owes_everything = True
    cache.store("thing", "2", ENTRY, 1)
    assert cache.generation("things") not in {None, first}
    assert connection.attempt(lambda client: client.ping())


def test_orders_can_read_the_generation_of_products(as_service):
    connection, _ = as_service("orders")
    assert connection.generation(GENERATION) == connection.generation(GENERATION) is not None


def test_the_gateway_reads_cached_entries_of_others_and_ignores_invalid_ones(as_service, everything):
    connection, _ = as_service("gateway")
    everything.hset(ORDER, mapping={"version": 1, "value": '{"id": "1"}'})
    everything.set(PRODUCT, "no entry")
    assert VersionedCache(connection, "catalog", 60).get("product", "1") is None
    assert everything.get(PRODUCT) == b"no entry"  # only its owner may remove it
    assert VersionedCache(connection, "orders", 60).get("order", "1") == {"id": "1"}


@pytest.mark.parametrize(("service", "names"), [("gateway", LIMITS_OF_REQUESTS), ("users", ["failed_logins"])])
def test_services_with_rate_limits_may_count(as_service, service, names):
    _, limits = as_service(service)
    for name in names:
        policy = Policy(name, 2, 3600)
        assert [limits.consume((policy, "me"))[0].remaining for _ in range(2)] == [1, 0]
        assert limits.peek((policy, "me"))[0].retry_after
        limits.reset(policy, "me")
        assert limits.peek((policy, "me"))[0].remaining == 2
