"""The bounds of a service's dead letters: the oldest beyond the greatest age or number are deleted."""

import functools
import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from nameko import config
from nameko.extensions import DependencyProvider
from sqlalchemy import ColumnElement, Table, delete, func, or_, select

from contracts.events import EVENTS, queue_name
from extensions.observability.instruments import DeletedDeadLetters
from extensions.observability.metrics import Metrics
from extensions.runtime.steps import run_each
from extensions.storage.retention import delete_in_batches

log = logging.getLogger(__name__)

# Rows per transaction: short transactions block nothing else.
BATCH = 500


class DeadLetterBounds(DependencyProvider):
    """Deletes dead letters for a service: `dead_letter_bounds = DeadLetterBounds()`.

    DEAD_LETTER_HOURS is the greatest age of one that was not replayed, MAX_DEAD_LETTERS the greatest number of rows.
    One that holds a secret, such as the token of a mail, is deleted as soon as the secret has expired, replayed or not.
    """

    metrics = Metrics()

    def __init__(self) -> None:
        super().__init__()
        self._instruments: Any = None

    def setup(self) -> None:
        """Create the instruments."""
        self._instruments = DeletedDeadLetters(self.metrics)

    def get_dependency(self, worker_ctx: Any) -> "DeadLetterBounds":
        """Return this provider; all workers share it."""
        return self

    def enforce(self, work: Any) -> None:
        """Delete the oldest dead letters beyond the bounds, in transactions of BATCH rows; log and count them.

        A bound that cannot be enforced does not stop the other one. Its failure is raised.
        """
        letters = work.table("dead_letters")
        age = timedelta(hours=float(config.get("DEAD_LETTER_HOURS", 2160)))
        number = int(config.get("MAX_DEAD_LETTERS", 10_000))
        too_old = letters.c.replayed_at.is_(None) & (letters.c.created_at < func.clock_timestamp() - age)
        first_too_many = select(letters.c.id).order_by(letters.c.id.desc()).offset(number).limit(1).scalar_subquery()
        bounds = (
            ("age", too_old, f"they are older than {age}"),
            ("number", letters.c.id <= first_too_many, f"there are more than {number}"),
        )
        run_each(functools.partial(self._delete, work, *bound) for bound in (*bounds, *_secrets(letters)))

    def _delete(self, work: Any, bound: str, where: ColumnElement[bool], reason: str) -> None:
        letters = work.table("dead_letters")
        # Whoever replays one now has locked it.
        oldest = select(letters.c.id).where(where).order_by(letters.c.id).limit(BATCH).with_for_update(skip_locked=True)
        statement = delete(letters).where(letters.c.id.in_(oldest))
        total = 0
        try:
            for deleted in delete_in_batches(work, statement, BATCH):
                total += deleted
        finally:
            if total:
                self._instruments.deleted(bound, total)
                log.error("%d dead letters were deleted, because %s", total, reason)


def _secrets(letters: Table) -> Iterator[tuple[str, ColumnElement[bool], str]]:
    """Yield the bound of each kind of event that holds a secret: after that time nothing can be done with it."""
    for event in EVENTS.values():
        if event.secret_for is None:
            continue
        queues = [queue_name(service, event) for service in event.consumers]
        is_one = or_(letters.c.queue.in_(queues), letters.c.event_type == event.event_type)
        has_expired = letters.c.created_at < func.clock_timestamp() - event.secret_for
        yield "secret", is_one & has_expired, f"the secrets of {event.event_type} in them have expired"
