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
from extensions.observability.instruments import CacheInstruments
from extensions.observability.metrics import Metrics
from extensions.runtime.addresses import redis_url
from extensions.runtime.backoff import Backoff
from extensions.security.production import require_own_secrets

log = logging.getLogger(__name__)

# Long enough that a busy process, which is late to read a response, does not count Redis as unavailable: other replicas
# go on reading an entry that could not be invalidated in time.
TIMEOUT_SECONDS = 1.0
# After a failure no call is made for a pause that grows up to this.
MAX_PAUSE_SECONDS = 2.0
# For rate limits (rate_limits.MAX_CONCURRENT), which are checked before a request has a worker, and for invalidations.
SPARE_CONNECTIONS = 50
# Pending invalidations are retried sooner than MAX_PAUSE_SECONDS: until then other processes read stale entries.
INVALIDATION_RETRY_SECONDS = 0.5


class RedisConnection(SharedExtension):
    """A pool of connections with short timeouts and a circuit breaker: after a failure calls are skipped for a pause.

    Invalidations that could not be sent stay pending and are sent before anything is read again.
    """

    metrics = Metrics()

    def __init__(self) -> None:
        super().__init__()
        self._client: Any = None
        self.instruments: Any = None
        self._backoff = Backoff(first=MAX_PAUSE_SECONDS / 4, longest=MAX_PAUSE_SECONDS)
        self._paused_until = 0.0
        self._is_unavailable = False
        self._pending: Any = None
        self._retries: Any = None
        self._entries = BatchLoader(self._read_entries)

    def setup(self) -> None:
        """Configure the pool; connections are opened on first use."""
        self.instruments = CacheInstruments(self.metrics)
        self.metrics.gauge(
            "redis_available", "1, or 0 while this process goes on without.", lambda: not self._is_unavailable
        )
        service = self.container.service_name
        require_own_secrets(config, service, redis=True)
        self._pending = PendingInvalidations(f"{service}:")
        self._client = redis.Redis.from_url(
            redis_url(config, service),
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            # Enough for all workers and the other greenlets: an empty pool would look like an unavailable Redis.
            max_connections=self.container.max_workers + SPARE_CONNECTIONS,
            retry=None,
            decode_responses=True,
        )
        self._put_if_newer = self._client.register_script(entries.PUT_IF_NEWER)

    def attempt(self, call: Callable[[redis.Redis], Any]) -> Any:
        """Return `call(client)`, None if Redis is unavailable."""
        return None if self._is_paused() else self._try(call)

    def _is_paused(self) -> bool:
        return time.monotonic() < self._paused_until

    def _try(self, call: Callable[[redis.Redis], Any]) -> Any:
        if self._is_unavailable:  # this call probes Redis; the others are skipped meanwhile
            self._paused_until = time.monotonic() + TIMEOUT_SECONDS
        try:
            self._pending.send(self._client)
            result = call(self._client)
        except (redis.RedisError, OSError) as error:
            pause = self._backoff.next_pause()
            self._paused_until = time.monotonic() + pause
            if not self._is_unavailable:
                log.warning("Redis is unavailable (%s); continuing without it", error)
            self._is_unavailable = True
            # Includes invalidations that only this call was about to send: their own caller may have returned already.
            self._retry_invalidations()
            return None
        if self._is_unavailable:
            log.info("Redis is back")
            self._is_unavailable = False
            self._paused_until = 0.0
            self._backoff.reset()
        return result

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
        if self._is_paused():  # do not join a batch that is probing Redis
            return None
        try:
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
        if self.attempt(lambda _client: True) is None:
            self._retry_invalidations()

    def _retry_invalidations(self) -> None:
        if self._retries is None and self._pending:
            self._retries = self.container.spawn_managed_thread(self._send_pending, identifier="cache.invalidations")

    def _send_pending(self) -> None:
        """Retry without waiting for the next read of this process, because other processes read the same entries."""
        sent = None
        # Another call may have taken a batch, and fail to send it while the ping succeeds: then they are pending again.
        while sent is None or self._pending:
            eventlet.sleep(INVALIDATION_RETRY_SECONDS)
            sent = self._try(lambda client: client.ping())
        self._retries = None

    def stop(self) -> None:
        """Close the pool."""
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
