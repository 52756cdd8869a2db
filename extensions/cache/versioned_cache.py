"""A cache of versioned values: a value is stored only if the entry has no newer version."""

import json
from collections.abc import Mapping
from typing import Any

from nameko import config
from nameko.extensions import DependencyProvider

from extensions.cache.connection import RedisConnection


class VersionedCache:
    """The cache of a service; a worker gets it as `self.cache`."""

    def __init__(self, connection: RedisConnection, service: str, seconds: int) -> None:
        self._connection, self._service, self._seconds = connection, service, seconds

    def get(self, kind: str, key: object) -> dict[str, Any] | None:
        """Return the cached value, or None."""
        found = self._connection.entry(self._key(kind, key))
        self._connection.instruments.read(kind, hit=found is not None)
        return found

    def store(self, kind: str, key: object, value: dict[str, Any], version: int) -> None:
        """Store `value` unless the entry has a version newer than `version`."""
        self._connection.store(self._key(kind, key), json.dumps(value), version, self._seconds)

    def invalidate(self, kind: str, versions: Mapping[Any, int]) -> None:
        """Remove values that are older than these versions, and store none of them later. Call it around the commit."""
        self._connection.invalidate({self._key(kind, key): each for key, each in versions.items()}, self._seconds)

    def generation(self, kind: str) -> str | None:
        """Return a value that changes with every change of this kind of data; None if Redis is unavailable.

        Make it part of the keys of lists, and read it before the database: an outdated list is then stored under an
        outdated key.
        """
        return self._connection.generation(self._key(kind, "generation"))

    def next_generation(self, kind: str) -> None:
        """Invalidate every list of this kind. Call it around the commit."""
        self._connection.renew(self._key(kind, "generation"))

    def _key(self, kind: str, key: object) -> str:
        return f"{self._service}:{kind}:{key}"


class Cache(DependencyProvider):
    """Gives a service its cache, `cache = Cache()`, or that of another service: `orders_cache = Cache("orders")`."""

    connection = RedisConnection()

    def __init__(self, owner: str = "") -> None:
        super().__init__()
        self._owner = owner

    def setup(self) -> None:
        """Create the cache; its keys start with the name of its owner."""
        owner = self._owner or self.container.service_name
        self.cache = VersionedCache(self.connection, owner, int(config.get("CACHE_SECONDS", 60)))

    def get_dependency(self, _worker_ctx: Any) -> VersionedCache:
        """Return the cache; all workers share it."""
        return self.cache
