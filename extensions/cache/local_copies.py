"""Copies of another service's data in the memory of this process, valid while its generation in Redis is the same."""

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Generic, TypeVar

from nameko.extensions import DependencyProvider

from extensions.cache.connection import RedisConnection

# Bounds the age of copies that their owner cannot invalidate, because it cannot reach Redis.
MAX_AGE_SECONDS = 5.0
MAX_COPIES = 10_000

T = TypeVar("T")


class LocalCopies(Generic[T]):
    """Copies of another service's data; a worker gets it as `self.products`, for example.

    Each read compares the generation in Redis, one round trip. The owner is called only for missing or outdated copies.
    """

    def __init__(self, connection: RedisConnection, generation_key: str) -> None:
        self._connection, self._generation_key = connection, generation_key
        self._generation: str | None = None
        self._copies: dict[str, T] = {}
        self._expires_at = 0.0

    def get(self, keys: Collection[str], load: Callable[[list[str]], Mapping[str, T]]) -> dict[str, T]:
        """Return the existing values of `keys`, by key. `load` calls the owner for several keys."""
        generation = self._connection.generation(self._generation_key)
        if generation != self._generation or time.monotonic() > self._expires_at:
            self._copies, self._generation = {}, generation
            self._expires_at = time.monotonic() + MAX_AGE_SECONDS
        copies = self._copies  # if they expire during load(), its values must not go into the new ones
        result = {key: copies[key] for key in keys if key in copies}
        missing = [key for key in keys if key not in copies]
        if missing:
            found = load(missing)
            result |= found
            # Without a generation (Redis is unavailable) a change would go unnoticed.
            if generation is not None and len(copies) < MAX_COPIES:
                copies |= found
        return result


class LocalCopiesProvider(DependencyProvider):
    """Gives a service local copies of another service's data.

    `products = LocalCopiesProvider("catalog", "products")`
    """

    connection = RedisConnection()

    def __init__(self, owner: str, kind: str) -> None:
        super().__init__()
        self._generation_key = f"{owner}:{kind}:generation"

    def setup(self) -> None:
        """Create the copies, which are empty at first."""
        self.copies: LocalCopies[Any] = LocalCopies(self.connection, self._generation_key)

    def get_dependency(self, _worker_ctx: Any) -> LocalCopies[Any]:
        """Return the copies; all workers share them."""
        return self.copies
