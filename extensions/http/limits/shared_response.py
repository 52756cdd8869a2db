"""Shared response: one run of a handler serves every request that arrives while it is fresh."""

import time
from collections.abc import Callable

from eventlet.event import Event as Signal

from contracts.errors import ServiceError

# A shared error expires after this many seconds at the latest.
ERROR_SECONDS = 0.5


class SharedResponse:
    """The latest response of a route whose response is the same for every caller."""

    def __init__(self, max_age: float) -> None:
        """A response is reused for `max_age` seconds, an error for ERROR_SECONDS at most."""
        self._max_age = max_age
        self._latest: Signal | None = None
        self._started = 0.0

    def get(self, start: Callable[[Signal], None]) -> Signal:
        """Return the signal that carries the response, sent already or still to come.

        Where there is no fresh one, `start(signal)` starts the work that sends a Response or a ServiceError to it.
        """
        if self._latest is None or self._is_stale(self._latest):
            self._latest, self._started = Signal(), time.monotonic()
            try:
                start(self._latest)
            except ServiceError as error:
                self._latest.send(error)
        return self._latest

    def _is_stale(self, signal: Signal) -> bool:
        if not signal.ready():
            return False
        max_age = min(self._max_age, ERROR_SECONDS) if isinstance(signal.wait(), ServiceError) else self._max_age
        return time.monotonic() - self._started > max_age
