"""Cached values with versions: a value is stored only if nothing newer is known."""

import json
from collections.abc import Mapping
from typing import Any

from nameko import config
from nameko.extensions import DependencyProvider

from extensions.cache.connection import RedisConnection


class VersionedCache:
    """What a worker gets as `self.cache`."""

    def __init__(self, connection: RedisConnection, service: str, seconds: int) -> None:
        self._connection, self._service, self._seconds = connection, service, seconds

    def get(self, kind: str, key: object) -> dict[str, Any] | None:
        """Return the cached value, None when there is none."""
        found = self._connection.entry(self._key(kind, key))
        self._connection.instruments.read(kind, hit=found is not None)
        return found

    def store(self, kind: str, key: object, value: dict[str, Any], version: int) -> None:
        """Keep `value` unless something newer than `version` is known."""
        self._connection.store(self._key(kind, key), json.dumps(value), version, self._seconds)

    def invalidate(self, kind: str, versions: Mapping[Any, int]) -> None:
        """Forget what is older than these versions, by key, and refuse it from now on. Call it around the commit."""
        self._connection.invalidate({self._key(kind, key): each for key, each in versions.items()}, self._seconds)

    def generation(self, kind: str) -> str | None:
        """Return what is another after every change to things of this kind, to be part of a key; None without Redis.

        Whoever reads it before the database can store what is old only under an old key.
        """
        return self._connection.generation(self._key(kind, "generation"))

    def next_generation(self, kind: str) -> None:
        """Forget every list of this kind. Call it around the commit."""
        self._connection.renew(self._key(kind, "generation"))

    def _key(self, kind: str, key: object) -> str:
        return f"{self._service}:{kind}:{key}"


class Cache(DependencyProvider):
    """Gives a service its cache, `cache = Cache()`, or another's to read: `orders_cache = Cache("orders")`."""

    connection = RedisConnection()

    def __init__(self, owner: str = "") -> None:
        super().__init__()
        self._owner = owner

    def setup(self) -> None:
        """All workers share it, its keys under its owner's name."""
        owner = self._owner or self.container.service_name
        self.cache = VersionedCache(self.connection, owner, int(config.get("CACHE_SECONDS", 60)))

    def get_dependency(self, _worker_ctx: Any) -> VersionedCache:
        """Return the cache."""
        return self.cache
