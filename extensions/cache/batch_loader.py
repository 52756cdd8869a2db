"""Questions to a server, as few as there can be: to send and to receive costs the same for one key as for thirty."""

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import eventlet
from eventlet.event import Event as Signal
from eventlet.semaphore import Semaphore

T = TypeVar("T")


class BatchLoader(Generic[T]):
    """Answers about keys: who asks in the same moment, or while others are asked for, shares one round trip."""

    def __init__(self, ask: Callable[[list[str]], Mapping[str, T]]) -> None:
        """`ask` makes the round trip."""
        self._ask = ask
        self._turn = Semaphore(1)
        self._next: _Batch[T] = _Batch()

    def get(self, key: str) -> T | None:
        """Return the answer about `key`, from after this call; None where it has none, or could not be asked for."""
        trip = self._next
        is_first = not trip.keys
        trip.keys[key] = None
        if is_first:
            self._make(trip)
        return trip.found.wait().get(key)

    def _make(self, trip: "_Batch[T]") -> None:
        found: Mapping[str, T] = {}
        try:
            with self._turn:
                eventlet.sleep(0)  # who was woken in the same moment gets to ask as well
                self._leave(trip)
                found = self._ask(list(trip.keys))
        finally:  # should this one be ended, the others are told that there is nothing
            self._leave(trip)
            trip.found.send(found)

    def _leave(self, trip: "_Batch[T]") -> None:
        """Have who comes from now on asked for with the next: it must not be told what was before."""
        if self._next is trip:
            self._next = _Batch()


class _Batch(Generic[T]):
    __slots__ = ("found", "keys")

    def __init__(self) -> None:
        self.keys: dict[str, None] = {}  # in their order, each once
        self.found = Signal()
