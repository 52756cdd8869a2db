"""Several requests to one target at a time, of which no more begin after the first that fails."""

import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import eventlet

T = TypeVar("T")


def call_each(items: Iterable[T], call: Callable[[T], bool], *, places: int, seconds: float) -> None:
    """Call `call(item)` for each item, `places` at a time.

    After a call that returned False, and after `seconds`, no further call begins. Returns when all that began have
    ended. If this greenlet is ended, so are they.
    """
    remaining = iter(items)
    end = time.monotonic() + seconds
    has_failed = False

    def work() -> None:
        nonlocal has_failed
        for item in remaining:
            if not call(item):
                has_failed = True
            if has_failed or time.monotonic() > end:
                return

    workers = [eventlet.spawn(work) for _ in range(places)]
    try:
        for worker in workers:
            worker.wait()
    finally:
        for worker in workers:
            worker.kill()
