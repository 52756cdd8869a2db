"""The cache in Redis: what is read often, kept for a short time, never older than what the owner has said since.

Redis may be away: reads then miss, writes are dropped, and the service works on, slower.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from uuid import uuid4

import eventlet
import redis
from nameko import config
from nameko.extensions import DependencyProvider, SharedExtension

from extensions.cache.batch_loader import BatchLoader
from extensions.observability.instruments import CacheInstruments
from extensions.observability.metrics import Metrics
from extensions.runtime.backoff import Backoff
from extensions.security.production import require_own_secrets

log = logging.getLogger(__name__)

# Long enough that a process which had no time to read is not taken for a Redis that does not answer: what cannot be
# invalidated in time, other replicas go on reading.
TIMEOUT_SECONDS = 1.0
REST_AFTER_FAILURE_SECONDS = 2.0
# For counters (rate_limits.AT_ONCE), which requests wait for before they have a worker, and for debts.
SPARE_CONNECTIONS = 50
# Who owes something does not rest as long: until it is made good, other processes read what is old.
DEBT_SECONDS = 0.5
MAX_OWED = 10_000
PAID_AT_ONCE = 500

# An invalidation leaves its version behind, so that a reader that began before the change cannot store the old value
# after it (H15). KEYS: the entry. ARGV: version, value ("" to invalidate), seconds to live. What is no entry gives way.
PUT_IF_NEWER = """
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then redis.call('DEL', KEYS[1]) end
local known = tonumber(redis.call('HGET', KEYS[1], 'version') or '-1') or -1
if tonumber(ARGV[1]) < known then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'value', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
"""

# How Redis says that a key holds what nobody here has put there.
FOREIGN = ("WRONGTYPE", "value is not an integer")


class RedisConnection(SharedExtension):
    """One small pool per service process, with short deadlines, left alone for a moment after a failure.

    What could not be invalidated is owed: it is made good before anything is read again.
    """

    metrics = Metrics()

    def __init__(self) -> None:
        super().__init__()
        self._client: Any = None
        self.instruments: Any = None
        self._backoff = Backoff(first=REST_AFTER_FAILURE_SECONDS / 4, longest=REST_AFTER_FAILURE_SECONDS)
        self._rest_until = 0.0
        self._is_away = False
        self._owed: dict[str, tuple[Any, ...]] = {}
        self._owes_everything = False
        self._debtor: Any = None
        self._entries = BatchLoader(self._read_entries)

    def setup(self) -> None:
        """Configure the pool; nothing is connected yet."""
        self.instruments = CacheInstruments(self.metrics)
        self.metrics.gauge("redis_available", "1, or 0 while this process goes on without.", lambda: not self._is_away)
        service = self.container.service_name
        require_own_secrets(config, service, redis=True)
        self._client = redis.Redis.from_url(
            (config.get("REDIS_URLS") or {}).get(service) or config.get("REDIS_URL", "redis://127.0.0.1:6379/0"),
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            # Never none left, which would look like a Redis that is away: the workers, and who is none.
            max_connections=self.container.max_workers + SPARE_CONNECTIONS,
            retry=None,
            decode_responses=True,
        )
        self._put_if_newer = self._client.register_script(PUT_IF_NEWER)

    def attempt(self, call: Callable[[redis.Redis], Any]) -> Any:
        """Return `call(client)`, None when Redis is away."""
        return None if self._rests() else self._try(call)

    def _rests(self) -> bool:
        return time.monotonic() < self._rest_until

    def _try(self, call: Callable[[redis.Redis], Any]) -> Any:
        if self._is_away:  # one finds out whether it is back; the others wait for nothing meanwhile
            self._rest_until = time.monotonic() + TIMEOUT_SECONDS
        try:
            self._settle_debts()
            answer = call(self._client)
        except (redis.RedisError, OSError) as error:
            pause = self._backoff.next_pause()
            self._rest_until = time.monotonic() + pause
            if not self._is_away:
                log.warning("Redis is unavailable (%s); going on without", error)
            self._is_away = True
            self._see_to_debts()  # those that this call could not pay, too: who owed them may have given up meanwhile
            return None
        if self._is_away:
            log.info("Redis is back")
            self._is_away = False
            self._rest_until = 0.0
            self._backoff.reset()
        return answer

    def read(self, key: str, call: Callable[[redis.Redis], Any]) -> Any:
        """Return `call(client)`, which reads `key`; None when Redis is away, or holds there what makes no sense."""

        def read_or_remove(client: redis.Redis) -> Any:
            try:
                return call(client)
            except (redis.ResponseError, ValueError) as error:
                _require_foreign(error)
                _remove(client, key, error)
                return None

        return self.attempt(read_or_remove)

    def entry(self, key: str) -> dict[str, Any] | None:
        """Return what `store` has put under `key`; None when there is nothing, or Redis is away."""
        if self._rests():  # one may be finding out whether Redis is back: the others do not wait for that
            return None
        try:
            return _entry(self._entries.get(key))
        except (redis.ResponseError, ValueError) as error:
            reason = error.with_traceback(None)
        return self.attempt(lambda client: _remove(client, key, reason))

    def _read_entries(self, keys: list[str]) -> dict[str, Any]:
        """Return what is kept of these entries; of one that makes no sense the error."""

        def read(client: redis.Redis) -> list[Any]:
            pipeline = client.pipeline(transaction=False)
            for key in keys:
                pipeline.hget(key, "value")
            found = pipeline.execute(raise_on_error=False)
            for one in found:
                _require_foreign(one)
            return found

        return dict(zip(keys, self.attempt(read) or (), strict=False))

    def generation(self, key: str) -> str | None:
        """Return what `renew` last put under `key`; None when Redis is away."""

        def read_or_begin(client: redis.Redis) -> str:
            known = client.get(key)
            if known is None:
                client.set(key, str(uuid4()), nx=True)
                known = client.get(key)
            return str(known)

        found: str | None = self.read(key, read_or_begin)
        return found

    def store(self, key: str, value: str, version: int, seconds: int) -> None:
        """Put a value where nothing newer is known."""
        self.attempt(lambda _client: self._put_if_newer(keys=[key], args=[version, value, seconds]))

    def invalidate(self, versions: Mapping[str, int], seconds: int) -> None:
        """Forget what is older than these versions, by key, now or as soon as Redis is there again."""
        self._owe({key: ("put", version, seconds) for key, version in versions.items()})

    def renew(self, key: str) -> None:
        """Give `key` a value that it never had, now or as soon as Redis is there again."""
        self._owe({key: ("renew",)})

    def _owe(self, debts: Mapping[str, tuple[Any, ...]]) -> None:
        for key, debt in debts.items():
            self._owed[key] = max(self._owed.get(key, debt), debt)
        if len(self._owed) > MAX_OWED:
            self._owed.clear()
            self._owes_everything = True
        if self.attempt(lambda _client: True) is None:
            self._see_to_debts()

    def _see_to_debts(self) -> None:
        if self._debtor is None and (self._owed or self._owes_everything):
            self._debtor = self.container.spawn_managed_thread(self._pay_when_possible, identifier="cache.debts")

    def _pay_when_possible(self) -> None:
        """Do not wait for the next reader of this process: other processes read the same entries."""
        is_paid = None
        while is_paid is None:
            eventlet.sleep(DEBT_SECONDS)
            # Another call may have all there is in its hands at this moment: with nothing to pay, ask all the same.
            is_paid = self._try(lambda client: client.ping())
        self._debtor = None

    def _settle_debts(self) -> None:
        if self._owes_everything:
            for key in self._client.scan_iter(f"{self.container.service_name}:*", count=1000):
                self._client.unlink(key)
            self._owes_everything = False
        while self._owed:
            debts = dict(self._owed.popitem() for _ in range(min(len(self._owed), PAID_AT_ONCE)))
            try:
                self._pay(debts)
            except BaseException:
                self._owed = debts | self._owed
                raise

    def _pay(self, debts: dict[str, tuple[Any, ...]]) -> None:
        """Settle all of these in one round trip."""
        pipeline = self._client.pipeline(transaction=False)
        for key, (kind, *rest) in debts.items():
            if kind == "renew":
                pipeline.set(key, str(uuid4()))
            else:
                version, seconds = rest
                pipeline.eval(PUT_IF_NEWER, 1, key, version, "", seconds)
        pipeline.execute()

    def stop(self) -> None:
        """Close the pool."""
        if self._client is not None:
            self._client.close()

    kill = stop


def _require_foreign(error: Any) -> None:
    """Raise `error` where it is one, and Redis that cannot serve, not the key that makes no sense."""
    if isinstance(error, redis.ResponseError) and not str(error).startswith(FOREIGN):
        raise error


def _remove(client: redis.Redis, key: str, reason: Exception) -> None:
    log.warning("%s holds what makes no sense (%s), and is removed", key, reason)
    with suppress(redis.exceptions.NoPermissionError):  # another's: it removes that itself
        client.unlink(key)


def _entry(kept: Any) -> dict[str, Any] | None:
    """Read what is kept of an entry, None for nothing; raises Redis' error, ValueError where it is no JSON object."""
    if not kept:
        return None
    if isinstance(kept, Exception):
        raise kept
    value = json.loads(kept)
    if not isinstance(value, dict):
        message = "no JSON object"
        raise ValueError(message)  # noqa: TRY004  (what json.loads raises as well)
    return value


class RedisHealth:
    """What a worker gets as `self.redis`."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    def ping(self) -> bool:
        """Tell whether Redis answers."""
        return bool(self._connection.attempt(lambda client: client.ping()))


class Redis(DependencyProvider):
    """Tells how Redis is."""

    connection = RedisConnection()

    def get_dependency(self, worker_ctx: Any) -> RedisHealth:
        """Return the probe."""
        return RedisHealth(self.connection)
