"""Bounds the searches that run at the same time, so that many expensive ones delay no other call of catalog.

A search can need a hundred times the processor of a plain list. Without a bound of their own, searches would take every
place for calls of catalog, and their timeouts would open its circuit breaker.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from contracts.errors import ServiceUnavailable
from extensions.runtime.bulkhead import Bulkhead

MOST_RUNNING = 4
MOST = 64
"""That run or wait, in one gateway. Further ones are refused."""


def _refusal() -> ServiceUnavailable:
    # Not Overloaded: after that, the gateway refuses all requests for a route, here also the plain lists.
    return ServiceUnavailable("Too many searches wait. Nothing was done; try again shortly.", retry_after=1)


_searches = Bulkhead(MOST_RUNNING, MOST, _refusal)


@contextmanager
def turn(seconds: float) -> Iterator[None]:
    """Wait for the turn of a search that has so many seconds left. Raises ServiceUnavailable where that is too few."""
    _searches.acquire(seconds)
    began = time.monotonic()
    try:
        yield
    finally:
        _searches.record_duration(time.monotonic() - began)
        _searches.release()
