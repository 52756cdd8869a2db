"""How long a greenlet waits for a response of PostgreSQL, where that is not the default."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_seconds: ContextVar[float | None] = ContextVar("response_timeout", default=None)


@contextmanager
def response_timeout(seconds: float) -> Iterator[None]:
    """Wait up to so many seconds for each answer."""
    before = _seconds.set(seconds)
    try:
        yield
    finally:
        _seconds.reset(before)


def response_timeout_or(default: float) -> float:
    """Return the seconds to wait, `default` where nothing else was said."""
    return _seconds.get() or default
