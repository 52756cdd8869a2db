"""The connection of a service process to Redis.

Redis may be unavailable: reads then miss, writes are dropped, and the service continues, more slowly.
"""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

import eventlet
import redis
from nameko import config
from nameko.extensions import DependencyProvider, SharedExtension

from extensions.cache import entries
from extensions.cache.batch_loader import BatchLoader
from extensions.cache.pending_invalidations import Invalidation, PendingInvalidations
from extensions.cache.redis_deadline import TELLING_SHARE, Deadline, NoTimeLeft, charged, of_request
from extensions.observability.instruments import CacheInstruments
from extensions.observability.metrics import Metrics
from extensions.runtime.addresses import redis_url
from extensions.runtime.backoff import Backoff
from extensions.runtime.progress import loops_of
from extensions.security.production import require_own_secrets

log = logging.getLogger(__name__)

# All commands of a request wait this long at most, in all processes that it passes: it must not become slower by more
# than a tenth of a second. After a command that takes longer, Redis is not asked again until a probe has found it back.
REQUEST_TIMEOUT_MS = 90
# Of each command of a probe, for which no request waits.
TIMEOUT_SECONDS = 1.0
# Between two probes. Until one succeeds, other processes read entries that this one could not invalidate.
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.05, 0.5
# The pauses begin at the shortest one again if Redis was available for this long.
HEALTHY_SECONDS = 5.0
# For rate limits (rate_limits.MAX_CONCURRENT), which are checked before a request has a worker, and for invalidations.
SPARE_CONNECTIONS = 50


class RedisConnection(SharedExtension):
    """A pool of connections with a short deadline for each request, and a circuit breaker for the process.

    After one failure no request asks Redis. A probe in the background finds out when it is back, and first sends the
    invalidations that could not be sent.
    """

    metrics = Metrics()

    def __init__(self) -> None:
        super().__init__()
        self._client: Any = None
        self.instruments: Any = None
        self._deadline_seconds = REQUEST_TIMEOUT_MS / 1000
        self._backoff = Backoff(FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS, healthy_after=HEALTHY_SECONDS)
        self._is_unavailable = False
        self._available_since = 0.0
        self._pending: Any = None
        self._entries = BatchLoader(self._read_entries)
        self._probe: Any = None

    def setup(self) -> None:
        """Configure the pool; connections are opened on first use."""
        self.instruments = CacheInstruments(self.metrics)
        self.metrics.gauge(
            "redis_available", "1, or 0 while this process goes on without.", lambda: not self._is_unavailable
        )
        service = self.container.service_name
        require_own_secrets(config, service, redis=True)
        self._deadline_seconds = float(config.get("REDIS_TIMEOUT_MS", REQUEST_TIMEOUT_MS)) / 1000
        self._pending = PendingInvalidations(f"{service}:")
        self._client = redis.Redis.from_url(
            redis_url(config, service),
            socket_timeout=max(TIMEOUT_SECONDS, self._deadline_seconds),
            socket_connect_timeout=max(TIMEOUT_SECONDS, self._deadline_seconds),
            # Enough for all workers and the other greenlets: an empty pool would look like an unavailable Redis.
            max_connections=self.container.max_workers + SPARE_CONNECTIONS,
            retry=None,
            decode_responses=True,
        )
        self._put_if_newer = self._client.register_script(entries.PUT_IF_NEWER)

    def attempt(self, call: Callable[[redis.Redis], Any]) -> Any:
        """Return `call(client)`, None if Redis is unavailable or does not respond in the time that the request has."""
        if self._is_unavailable:
            return None
        try:
            with of_request(self._deadline_seconds):
                self._pending.send(self._client)
                return call(self._client)
        except NoTimeLeft:
            return None
        except (redis.RedisError, OSError) as error:
            self._lose(error)
            return None

    def _lose(self, error: Exception) -> None:
        """Stop asking Redis, and start the probe."""
        if self._is_unavailable:
            return
        log.warning("Redis is unavailable (%s); continuing without it", error)
        self._is_unavailable = True
        self._client.connection_pool.disconnect(inuse_connections=False)  # after a restart of Redis all are dead
        ran_for = time.monotonic() - self._available_since
        self._probe = self.container.spawn_managed_thread(lambda: self._await_return(ran_for), identifier="cache.probe")

    def _await_return(self, ran_for: float) -> None:
        """Probe Redis until it responds as fast as requests need it. Before, it was available for `ran_for` seconds."""
        with loops_of(self.container).running("cache.probe") as loop:
            eventlet.sleep(self._backoff.next_pause(ran_for))
            while not self._responds():
                loop.report_progress()
                eventlet.sleep(self._backoff.next_pause())
        log.info("Redis is back")
        self._is_unavailable, self._available_since = False, time.monotonic()
        self.attempt(lambda _client: True)  # sends invalidations that were added since the probe sent the others

    def _responds(self) -> bool:
        try:
            # Also to a slow Redis: other processes may still read the entries. This opens a connection, too.
            self._client.ping()
            self._pending.send(self._client)
            with Deadline(TELLING_SHARE * self._deadline_seconds):
                self._client.ping()
        except (redis.RedisError, OSError):
            return False
        except Exception:  # an error of a managed thread would end the service
            log.exception("the probe of Redis failed")
            return False
        return True

    def read(self, key: str, call: Callable[[redis.Redis], Any]) -> Any:
        """Return `call(client)`, which reads `key`; None if Redis is unavailable or the key's content is not ours."""

        def read_or_remove(client: redis.Redis) -> Any:
            try:
                return call(client)
            except (redis.ResponseError, ValueError) as error:
                entries.raise_unless_foreign(error)
                entries.remove_foreign(client, key, error)
                return None

        return self.attempt(read_or_remove)

    def entry(self, key: str) -> dict[str, Any] | None:
        """Return the value that `store` stored under `key`; None if there is none, or if Redis is unavailable."""
        try:
            with charged():
                return entries.decode(self._entries.get(key))
        except (redis.ResponseError, ValueError) as error:
            reason = error.with_traceback(None)
        return self.attempt(lambda client: entries.remove_foreign(client, key, reason))

    def _read_entries(self, keys: list[str]) -> dict[str, Any]:
        """Return the stored values by key; for a key of another format the error of Redis."""

        def read(client: redis.Redis) -> list[Any]:
            pipeline = client.pipeline(transaction=False)
            for key in keys:
                pipeline.hget(key, "value")
            found = pipeline.execute(raise_on_error=False)
            for result in found:
                entries.raise_unless_foreign(result)
            return found

        return dict(zip(keys, self.attempt(read) or (), strict=False))

    def generation(self, key: str) -> str | None:
        """Return the value that `renew` last set under `key`; None if Redis is unavailable."""

        def read_or_begin(client: redis.Redis) -> str:
            known = client.get(key)
            if known is None:
                client.set(key, str(uuid4()), nx=True)
                known = client.get(key)
            return str(known)

        found: str | None = self.read(key, read_or_begin)
        return found

    def store(self, key: str, value: str, version: int, seconds: int) -> None:
        """Store `value`, JSON, for `seconds` unless the entry has a newer version."""
        self.attempt(lambda _client: self._put_if_newer(keys=[key], args=[version, value, seconds]))

    def invalidate(self, versions: Mapping[str, int], seconds: int) -> None:
        """Invalidate entries older than these versions, by key; later if Redis is unavailable."""
        self._invalidate({key: ("put", version, seconds) for key, version in versions.items()})

    def renew(self, key: str) -> None:
        """Set `key` to a value that it never had; later if Redis is unavailable."""
        self._invalidate({key: ("renew",)})

    def _invalidate(self, invalidations: Mapping[str, Invalidation]) -> None:
        self._pending.add(invalidations)
        if self.attempt(lambda _client: True) is None and not self._is_unavailable:
            # The request has no time left to wait for Redis, but until then others would read the old entries.
            self.container.spawn_managed_thread(lambda: self.attempt(lambda _client: True), identifier="cache.send")

    def stop(self) -> None:
        """End the probe and close the pool."""
        if self._probe is not None:
            self._probe.kill()
        if self._client is not None:
            self._client.close()

    kill = stop


class RedisHealth:
    """The health check of Redis; a worker gets it as `self.redis`."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    def ping(self) -> bool:
        """Tell whether Redis responds."""
        return bool(self._connection.attempt(lambda client: client.ping()))


class Redis(DependencyProvider):
    """Gives a service the health check of Redis: `redis = Redis()`."""

    connection = RedisConnection()

    def get_dependency(self, worker_ctx: Any) -> RedisHealth:
        """Return the health check."""
        return RedisHealth(self.connection)
