"""A batch loader: concurrent reads share one round trip, which costs about the same for thirty keys as for one."""

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import eventlet
from eventlet.event import Event as Signal
from eventlet.semaphore import Semaphore

T = TypeVar("T")


class BatchLoader(Generic[T]):
    """Loads values by key. Calls of `get` that arrive while a round trip is in progress share the next one."""

    def __init__(self, load: Callable[[list[str]], Mapping[str, T]]) -> None:
        """`load` makes the round trip: it returns the values that exist, by key."""
        self._load = load
        self._one_at_a_time = Semaphore(1)
        self._next: _Batch[T] = _Batch()

    def get(self, key: str) -> T | None:
        """Return the value of `key`, read after this call; None if there is none, or if it could not be loaded.

        An error of `load` is raised to the first caller of the batch only.
        """
        batch = self._next
        is_first = not batch.keys
        batch.keys[key] = None
        if is_first:
            self._run(batch)
        return batch.values.wait().get(key)

    def _run(self, batch: "_Batch[T]") -> None:
        values: Mapping[str, T] = {}
        try:
            with self._one_at_a_time:
                eventlet.sleep(0)  # lets all greenlets that are ready to run join the batch
                self._close(batch)
                values = self._load(list(batch.keys))
        finally:  # if this greenlet is killed, the others get no value
            self._close(batch)
            batch.values.send(values)

    def _close(self, batch: "_Batch[T]") -> None:
        """Let later calls join the next batch: this one may return values from before their call."""
        if self._next is batch:
            self._next = _Batch()


class _Batch(Generic[T]):
    __slots__ = ("keys", "values")

    def __init__(self) -> None:
        self.keys: dict[str, None] = {}  # an ordered set
        self.values = Signal()
