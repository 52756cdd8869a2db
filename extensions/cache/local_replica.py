"""Copies of what another service owns, kept in this process for as long as Redis says that nothing has changed."""

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Generic, TypeVar

from nameko.extensions import DependencyProvider

from extensions.cache.connection import RedisConnection

# For so long at most is one kept whose owner is cut off from Redis.
COPY_SECONDS = 5.0
MAX_COPIES = 10_000

T = TypeVar("T")


class LocalReplica(Generic[T]):
    """What a worker gets as `self.products`, say: copies of what another service owns, as long as they are the latest.

    One question to Redis tells whether they are; only when something has changed is the owner asked again.
    """

    def __init__(self, connection: RedisConnection, generation_key: str) -> None:
        self._connection, self._generation_key = connection, generation_key
        self._generation: str | None = None
        self._kept: dict[str, T] = {}
        self._forget_at = 0.0

    def get(self, keys: Collection[str], ask: Callable[[list[str]], Mapping[str, T]]) -> dict[str, T]:
        """Return those things that exist, by their keys; `ask` asks the owner about several of them."""
        generation = self._connection.generation(self._generation_key)
        if generation != self._generation or time.monotonic() > self._forget_at:
            self._kept, self._generation = {}, generation
            self._forget_at = time.monotonic() + COPY_SECONDS
        kept = self._kept  # should all be forgotten while the owner is asked, then what it answers as well
        result = {key: kept[key] for key in keys if key in kept}
        missing = [key for key in keys if key not in kept]
        if missing:
            found = ask(missing)
            result |= found
            if generation is not None and len(kept) < MAX_COPIES:  # without one, nobody would tell us of a change
                kept |= found
        return result


class ReplicaOf(DependencyProvider):
    """Gives a service copies of another's things: `products = CopiesOf("catalog", "products")`."""

    connection = RedisConnection()

    def __init__(self, owner: str, kind: str) -> None:
        super().__init__()
        self._generation_key = f"{owner}:{kind}:generation"

    def setup(self) -> None:
        """All workers share them."""
        self.copies: LocalReplica[Any] = LocalReplica(self.connection, self._generation_key)

    def get_dependency(self, _worker_ctx: Any) -> LocalReplica[Any]:
        """Return the copies."""
        return self.copies
