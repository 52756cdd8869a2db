"""Invalidations that Redis has not received yet."""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import redis

from extensions.cache.entries import PUT_IF_NEWER

MAX_PENDING = 10_000
BATCH = 500

Invalidation = tuple[Any, ...]
"""("put", version, seconds to live) for an entry, ("renew",) for a generation."""


class PendingInvalidations:
    """The pending invalidations of one process by key. If there are more than MAX_PENDING, all entries are deleted.

    `prefix` is the prefix of all keys of the service.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._by_key: dict[str, Invalidation] = {}
        self._all = False

    def __bool__(self) -> bool:
        """Tell whether there are any."""
        return self._all or bool(self._by_key)

    def add(self, invalidations: Mapping[str, Invalidation]) -> None:
        """Add invalidations; of several for one key the one with the highest version is kept."""
        for key, invalidation in invalidations.items():
            self._by_key[key] = max(self._by_key.get(key, invalidation), invalidation)
        if len(self._by_key) > MAX_PENDING:
            self._by_key.clear()
            self._all = True

    def send(self, client: redis.Redis) -> None:
        """Send all of them to Redis. Those that could not be sent stay pending; raises the error of Redis."""
        if self._all:
            for key in client.scan_iter(f"{self._prefix}*", count=1000):
                client.unlink(key)
            self._all = False
        while self._by_key:
            batch = dict(self._by_key.popitem() for _ in range(min(len(self._by_key), BATCH)))
            try:
                _send_batch(client, batch)
            except BaseException:
                self._by_key = batch | self._by_key
                raise


def _send_batch(client: redis.Redis, batch: Mapping[str, Invalidation]) -> None:
    """Send invalidations in one round trip."""
    pipeline = client.pipeline(transaction=False)
    for key, (kind, *rest) in batch.items():
        if kind == "renew":
            pipeline.set(key, str(uuid4()))
        else:
            version, seconds = rest
            pipeline.eval(PUT_IF_NEWER, 1, key, version, "", seconds)
    pipeline.execute()
