"""Sweeps: timers that handle all rows that are due. A row that fails delays no other.

The due rows are handled together in one transaction. Where that fails, each is handled alone, and one that fails again
is left out of later batches: it is tried alone, after pauses that grow.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

from nameko.extensions import DependencyProvider
from sqlalchemy.orm import Session

from extensions.runtime.backoff import Backoff
from extensions.storage.engine import LockTimeout, is_general_outage

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0
# Rows that failed and are remembered. Beyond it the first ones are forgotten, and join the batches again.
MAX_FAILING = 1000
# Failing rows that are tried again in one run, and tracebacks that a run writes to the log.
MAX_RETRIED = 50
LOGGED = 5
# How long one run handles rows alone. The rest stays due, for the next run.
EACH_SECONDS = 5.0
# These are short because another transaction can lock a related row, and the sweep must not wait for it.
BATCH_LOCK_TIMEOUT, ROW_LOCK_TIMEOUT = "500ms", "200ms"


@dataclass(slots=True)
class _Failing:
    due: float = 0.0
    pauses: Backoff = field(default_factory=lambda: Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, jitter=0.2))


class LockDueRows(Protocol):
    """Locks and returns the due rows. `only` limits them to these ids (None: all), `without` excludes these ids.

    Each row has an `id`. Rows that another transaction has locked are skipped.
    """

    def __call__(self, session: Session, *, only: Sequence[UUID] | None, without: Sequence[UUID]) -> Sequence[Any]:
        """Return the rows."""


Handle = Callable[[Session, Any], object]
"""Does what is due for the rows that a LockDueRows has returned."""


class Sweep:
    """One sweep, with the rows that failed in this process."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`name` says in the log what the sweep does."""
        self._name, self._clock = name, clock
        self._failing: OrderedDict[UUID, _Failing] = OrderedDict()
        self._logged = 0

    def run(self, work: Any, lock: LockDueRows, handle: Handle) -> None:
        """Handle the due rows once. Raises an outage of the database."""
        self._logged = 0
        found: Sequence[Any] = ()
        try:
            with work.transaction(lock_timeout=BATCH_LOCK_TIMEOUT) as session:
                found = lock(session, only=None, without=list(self._failing))
                if found:
                    handle(session, found)
        except Exception as error:
            if is_general_outage(error) or not found:
                raise
            log.warning("%s: %d together failed (%r); each is tried alone", self._name, len(found), error)
            self._run_each((row.id for row in found), work, lock, handle)
        now = self._clock()
        again = [key for key, failing in self._failing.items() if failing.due <= now]
        self._run_each(again[:MAX_RETRIED], work, lock, handle)

    def _run_each(self, keys: Iterable[UUID], work: Any, lock: LockDueRows, handle: Handle) -> None:
        end = self._clock() + EACH_SECONDS
        for key in keys:
            if self._clock() > end:
                return
            try:
                with work.transaction(lock_timeout=ROW_LOCK_TIMEOUT) as session:
                    if rows := lock(session, only=[key], without=()):
                        handle(session, rows)
            except Exception as error:
                if is_general_outage(error):
                    raise
                self._postpone(key, error)
            else:
                self._failing.pop(key, None)

    def _postpone(self, key: UUID, error: Exception) -> None:
        failing = self._failing.setdefault(key, _Failing())
        if isinstance(error, LockTimeout):
            failing.pauses.reset()  # a lock says nothing about the row
        pause = failing.pauses.next_pause()
        failing.due = self._clock() + pause
        if len(self._failing) > MAX_FAILING:
            self._failing.popitem(last=False)
        if self._logged < LOGGED:
            self._logged += 1
            message = "%s: %s failed %d times; next try in %.0f s"
            log.error(message, self._name, key, failing.pauses.failures, pause, exc_info=error)


class SweepProvider(DependencyProvider):
    """Gives a service a sweep: `overdue: Sweep = SweepProvider("cancelling overdue orders")`."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def setup(self) -> None:
        """Make the sweep."""
        self._sweep = Sweep(self._name)

    def get_dependency(self, _worker_ctx: Any) -> Sweep:
        """Return the sweep; all workers share it."""
        return self._sweep
