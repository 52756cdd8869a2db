"""Overload pause: stop calling an overloaded service until its Retry-After has passed."""

import time

from contracts.errors import Overloaded
from extensions.http.message.errors import OVERLOAD_RETRY_SECONDS, gateway_overloaded

# Requests queued right after an overload would mostly be refused in the end, so none are queued for this long.
NO_QUEUE_SECONDS = 10.0


class OverloadPause:
    """The pause of one route: begun by the Overloaded of the service behind it, ended by time.

    The circuit breaker of extensions/rpc/service_guard.py is another thing: it is opened by a service that is silent.
    """

    def __init__(self) -> None:
        self._until = self._no_queue_until = 0.0
        self._reason = gateway_overloaded()

    def begin(self, reason: Overloaded) -> None:
        """Refuse requests for `reason.retry_after` seconds."""
        self._until = time.monotonic() + (reason.retry_after or OVERLOAD_RETRY_SECONDS)
        self._no_queue_until = self._until + NO_QUEUE_SECONDS
        self._reason = reason

    def queue_timeout(self, timeout: float) -> float:
        """Return how many seconds a request may wait for a worker: 0 soon after an overload, `timeout` otherwise."""
        return 0.0 if time.monotonic() < self._no_queue_until else timeout

    def check(self) -> None:
        """Raise the service's Overloaded during the pause."""
        if time.monotonic() < self._until:
            raise Overloaded(str(self._reason), retry_after=self._reason.retry_after)
