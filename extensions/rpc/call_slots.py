"""Limits how many calls of a service run at the same time. Further calls wait in arrival order."""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from nameko.exceptions import ContainerBeingKilled

Spawn = Callable[[], Any]
"""Starts a worker and returns its context."""


class CallSlots:
    """Runs at most `size` workers at the same time. The prefetch limit of the queue bounds how many calls wait."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._queued: deque[tuple[Spawn, Mapping[Any, Any]]] = deque()

    def run(self, spawn: Spawn, greenlets: Mapping[Any, Any]) -> None:
        """Start a worker now, or as soon as another one ends; `greenlets` has the greenlet of each worker."""
        if self._free:
            self._free -= 1
            self._start(spawn, greenlets)
        else:
            self._queued.append((spawn, greenlets))

    def _start(self, spawn: Spawn, greenlets: Mapping[Any, Any]) -> None:
        try:
            greenlet = greenlets[spawn()]
        except BaseException:
            self._free += 1
            raise
        greenlet.link(self._ended)  # also called for a worker that was killed before it began

    def _ended(self, _greenlet: Any) -> None:
        self._free += 1
        while self._free and self._queued:
            self._free -= 1
            try:
                self._start(*self._queued.popleft())
            except ContainerBeingKilled:
                self._queued.clear()  # their messages are not acknowledged, so the broker delivers them again
