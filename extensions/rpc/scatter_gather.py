"""The same call to several services at the same time."""

from collections.abc import Callable, Sequence
from typing import Any

import eventlet

from contracts.errors import ServiceError
from extensions.observability.traces import current_trace, start_trace


def call_each(names: Sequence[str], call: Callable[[str], Any]) -> dict[str, Any]:
    """Return for each name what `call(name)` returned, or the ServiceError that it raised.

    Each runs in a separate greenlet, with the trace and the deadline of the caller.
    """
    trace = current_trace()
    budget = None if trace.deadline is None else trace.remaining(float("inf"))

    def one(name: str) -> Any:
        start_trace(trace.headers, trace.service, budget, trace.redis_wait)
        try:
            return call(name)
        except ServiceError as error:
            return error

    pool = eventlet.GreenPool(max(1, len(names)))
    return dict(zip(names, pool.imap(one, names), strict=True))
