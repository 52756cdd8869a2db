"""An override of the response timeout of PostgreSQL for the current greenlet."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_seconds: ContextVar[float | None] = ContextVar("response_timeout", default=None)


@contextmanager
def response_timeout(seconds: float) -> Iterator[None]:
    """Wait up to `seconds` for each response of PostgreSQL inside this block."""
    before = _seconds.set(seconds)
    try:
        yield
    finally:
        _seconds.reset(before)


def response_timeout_or(default: float) -> float:
    """Return the override in seconds, or `default` if there is none."""
    return _seconds.get() or default
