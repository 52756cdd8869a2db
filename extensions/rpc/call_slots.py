"""Limits how many calls of a service run at the same time. Further calls wait in arrival order."""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import eventlet
from nameko.exceptions import ContainerBeingKilled

from contracts.errors import ServiceUnavailable

Spawn = Callable[[], Any]
"""Starts a worker and returns its context."""


class _Waiting:
    """A call that waits for a slot."""

    __slots__ = ("give_up", "greenlets", "spawn", "timer")

    def __init__(self, spawn: Spawn, greenlets: Mapping[Any, Any], give_up: Callable[[], object]) -> None:
        self.spawn, self.greenlets, self.give_up = spawn, greenlets, give_up
        self.timer: Any = None


class CallSlots:
    """Runs at most `size` workers at the same time. The prefetch limit of the queue bounds how many calls wait."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._queued: deque[_Waiting] = deque()

    def run(
        self,
        spawn: Spawn,
        greenlets: Mapping[Any, Any],
        seconds: float | None = None,
        give_up: Callable[[], object] = lambda: None,
    ) -> None:
        """Start a worker now, or as soon as another one ends; `greenlets` has the greenlet of each worker.

        A call that has waited for `seconds` is not started: `give_up()` is called instead, and also if no worker is
        free for it.
        """
        if self._free:
            self._free -= 1
            self._start(spawn, greenlets)
            return
        waiting = _Waiting(spawn, greenlets, give_up)
        if seconds is not None:
            waiting.timer = eventlet.spawn_after(seconds, self._give_up, waiting)
        self._queued.append(waiting)

    def _give_up(self, waiting: _Waiting) -> None:
        if waiting in self._queued:
            self._queued.remove(waiting)
            waiting.give_up()

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
            waiting = self._queued.popleft()
            if waiting.timer is not None:
                waiting.timer.cancel()
            try:
                self._start(waiting.spawn, waiting.greenlets)
            except ContainerBeingKilled:
                self._queued.clear()  # their messages are not acknowledged, so the broker delivers them again
            except ServiceUnavailable:  # no worker was free for too long
                waiting.give_up()
