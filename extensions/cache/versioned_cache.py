"""A cache of versioned values: a value is stored only if the entry has no newer version."""

import json
import random
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from nameko import config
from nameko.extensions import DependencyProvider

from extensions.cache.connection import RedisConnection
from extensions.cache.single_flight import SingleFlight

V = TypeVar("V")
JITTER = 0.1


class VersionedCache:
    """The cache of a service; a worker gets it as `self.cache`."""

    def __init__(self, connection: RedisConnection, service: str, seconds: int) -> None:
        self._connection, self._service, self._seconds = connection, service, seconds
        self._flights = SingleFlight()

    def get(self, kind: str, key: object) -> dict[str, Any] | None:
        """Return the cached value, or None."""
        found = self._connection.entry(self._key(kind, key))
        self._connection.instruments.read(kind, hit=found is not None)
        return found

    def load(self, kind: str, key: object, load: Callable[[], V], *, read: Callable[[], V | None] | None = None) -> V:
        """Return `load()`, which concurrent calls for this key share. Call it after a miss.

        `load` is not executed if `read()` then finds the value; by default that is `get(kind, key)`.
        """
        default = cast("Callable[[], V | None]", lambda: self.find(kind, key))
        return self._flights.get((kind, str(key)), read or default, load)

    def find(self, kind: str, key: object) -> dict[str, Any] | None:
        """Return the cached value. It counts as no read: the caller has missed already."""
        return self._connection.entry(self._key(kind, key))

    def store(self, kind: str, key: object, value: dict[str, Any], version: int) -> None:
        """Store `value` unless the entry has a version newer than `version`.

        It expires after up to `CACHE_SECONDS`, a random tenth less: entries that were stored together expire apart.
        """
        seconds = max(1, round(self._seconds * (1 - JITTER * random.random())))  # noqa: S311  (not for security)
        self._connection.store(self._key(kind, key), json.dumps(value), version, seconds)

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
