"""How long a greenlet waits for one answer of PostgreSQL, where that is not as long as everybody does."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_seconds: ContextVar[float | None] = ContextVar("patience", default=None)


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Wait up to so many seconds for each answer."""
    before = _seconds.set(seconds)
    try:
        yield
    finally:
        _seconds.reset(before)


def patience_or(default: float) -> float:
    """Return the seconds to wait, `default` where nothing else was said."""
    return _seconds.get() or default
