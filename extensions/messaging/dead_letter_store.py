"""What an operator does with dead letters: list, group, count, discard and replay them; and the bounds of the table."""

import logging
from collections.abc import Callable, Collection, Sequence
from datetime import UTC
from typing import Any
from uuid import UUID

from nameko.extensions import DependencyProvider
from sqlalchemy import ColumnElement, Row, Select, Table, Text, Uuid, delete, func, select, text, update
from sqlalchemy.orm import Session

from contracts.errors import DeadLetterForged, DeadLetterNotFound, InvalidState, UpstreamTimeout
from contracts.events import EVENTS, queue_name
from contracts.operations import MAX_SELECTED, DeadLetterGroup, DeadLetterSelection, DeadLetterView, Summary
from extensions.messaging import topology
from extensions.messaging.connection import BrokerUnavailable
from extensions.messaging.publisher import ConfirmedPublisher, OutgoingMessage
from extensions.observability.traces import propagated_headers
from extensions.storage.database_access import DatabaseAccess

log = logging.getLogger(__name__)

SHOWN_BODY = 2000
SECRET_EVENTS = frozenset(name for name, event in EVENTS.items() if event.secret_for is not None)
SECRET_QUEUES = frozenset(
    queue_name(service, EVENTS[name]) for name in SECRET_EVENTS for service in EVENTS[name].consumers
)
HIDDEN = "(hidden: it holds the token of a mail)"
MAX_GROUPS = 100
# How many characters of the reasons are compared. A long reason repeats the invalid value, and costs time.
COMPARED_REASON = 300
# What differs between messages that failed for the same reason: ids and numbers, as a regular expression of PostgreSQL.
VARIABLE = "[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|[0-9]+"
UNCONFIRMED = (
    "The message broker did not confirm the message, so whether it was replayed is unknown. The dead letter is kept."
    " Replay it again: a message that was handled is not handled twice."
)
NOT_RECORDED = (
    "The message was replayed, but that could not be recorded: the dead letter may still be listed. Replay it again:"
    " a message that was handled is not handled twice."
)

Transact = Callable[[Callable[[Session], Any]], Any]
"""Runs a step in a transaction, commits it, and returns its result; or the stored result of an earlier run."""


class DeadLetterStore(DependencyProvider):
    """Gives a service its dead letters: `dead_letters = DeadLetterStore()`."""

    publisher = ConfirmedPublisher()
    storage = DatabaseAccess()

    def get_dependency(self, worker_ctx: Any) -> "DeadLetterStore":
        """Return this provider; all workers share it."""
        return self

    def _table(self) -> Table:
        return self.storage.table("dead_letters")

    def list(
        self,
        session: Session,
        limit: int,
        before: UUID | None,
        *,
        replayed: bool = False,
        group: str | None = None,
        **equal: str | None,
    ) -> list[dict[str, Any]]:
        """Return the newest dead letters older than `before`: those that wait, or those that were replayed.

        `equal` filters by `queue`, `event_type` or `correlation_id`. A body is cut off after SHOWN_BODY characters.
        """
        if group is not None and not group.startswith(f"{self.container.service_name}-"):
            return []
        letters = self._table()
        state = letters.c.replayed_at.is_not(None) if replayed else letters.c.replayed_at.is_(None)
        wanted = [letters.c[name] == value for name, value in equal.items() if value is not None]
        if before is not None:
            wanted.append(letters.c.id < before)
        if group is not None:
            wanted.append(self._group() == group)
        # The ids first, so that no more bodies are read than are shown.
        page = select(letters.c.id).where(state, *wanted).order_by(letters.c.id.desc()).limit(limit)
        shown = self._select().where(letters.c.id.in_(page))
        rows = session.execute(shown.order_by(letters.c.id.desc())).all()
        replays = self._replays(session, {row.message_id for row in rows} - {None})
        return [self._view(row, replays.get((row.queue, row.message_id))) for row in rows]

    def _replays(self, session: Session, message_ids: Collection[str]) -> dict[tuple[str, str], UUID]:
        """Return the first dead letter of each of these messages that was replayed, by queue and message id."""
        letters = self._table()
        found = select(letters.c.queue, letters.c.message_id, func.min(letters.c.id.cast(Text)).cast(Uuid))
        replayed = letters.c.replayed_at.is_not(None), letters.c.message_id.in_(message_ids)
        rows = session.execute(found.where(*replayed).group_by(letters.c.queue, letters.c.message_id))
        return {(queue, message_id): first for queue, message_id, first in rows}

    def count(self, session: Session) -> int:
        """Return the number of dead letters that wait."""
        letters = self._table()
        return session.scalars(select(func.count()).where(letters.c.replayed_at.is_(None))).one()

    def summary(self, session: Session, shown: int) -> Summary:
        """Return the number of dead letters that wait, and the ids of the newest `shown`."""
        letters = self._table()
        waiting = select(letters.c.id).where(letters.c.replayed_at.is_(None))
        newest = waiting.order_by(letters.c.id.desc()).limit(shown)
        count = session.scalars(select(func.count()).select_from(waiting.subquery())).one()
        return {"count": count, "ids": [str(letter) for letter in session.scalars(newest)]}

    def groups(self, session: Session) -> Sequence[dict[str, Any]]:
        """Return the dead letters that wait, by queue, event and reason; the largest groups first."""
        letters = self._table()
        newest = func.max(letters.c.id.cast(Text)).cast(Uuid)
        replayed = select(letters.c.queue, letters.c.message_id, func.min(letters.c.id.cast(Text)).label("first"))
        has_replay = letters.c.replayed_at.is_not(None), letters.c.message_id.is_not(None)
        before = replayed.where(*has_replay).group_by(letters.c.queue, letters.c.message_id).subquery()
        same = (before.c.queue == letters.c.queue) & (before.c.message_id == letters.c.message_id)
        counted = (
            select(
                letters.c.queue,
                letters.c.event_type,
                self._reason().label("reason"),
                func.count().label("count"),
                func.count().filter(before.c.first < letters.c.id.cast(Text)).label("failed_again"),
                newest.label("newest"),
                func.min(letters.c.created_at).label("oldest_at"),
            )
            .select_from(letters.outerjoin(before, same))
            .where(letters.c.replayed_at.is_(None))
            .group_by(letters.c.queue, letters.c.event_type, text("reason"))
            .subquery()
        )
        group = self._name_of(counted.c.queue, counted.c.event_type, counted.c.reason).label("group")
        of_group = counted.c.count, counted.c.failed_again, counted.c.oldest_at
        shown = letters.c.queue, letters.c.event_type, letters.c.error, letters.c.created_at
        found = select(group, *of_group, *shown).join(letters, letters.c.id == counted.c.newest)
        rows = session.execute(found.order_by(counted.c.count.desc(), letters.c.id.desc()).limit(MAX_GROUPS))
        return [self._group_view(row) for row in rows]

    def select(self, session: Session, selection: DeadLetterSelection) -> tuple[Sequence[UUID], int]:
        """Return the selected ids, the oldest first, and how many more the group has."""
        if selection.ids is not None:
            return tuple(dict.fromkeys(selection.ids)), 0
        letters = self._table()
        waiting = select(letters.c.id).where(letters.c.replayed_at.is_(None), self._group() == selection.group)
        ids = session.scalars(waiting.order_by(letters.c.id).limit(MAX_SELECTED)).all()
        count = session.scalars(select(func.count()).select_from(waiting.subquery())).one()
        return ids, count - len(ids)

    def _group(self) -> ColumnElement[str]:
        """Return the SQL for the group of a dead letter: its queue, event and reason, apart from numbers and ids."""
        letters = self._table()
        return self._name_of(letters.c.queue, letters.c.event_type, self._reason())

    def _reason(self) -> ColumnElement[str]:
        return func.regexp_replace(func.left(self._table().c.error, COMPARED_REASON), VARIABLE, "#", "g")

    def _name_of(self, *cause: ColumnElement[Any]) -> ColumnElement[str]:
        return func.concat(self.container.service_name, "-", func.md5(func.concat_ws(" ", *cause)))

    def _group_view(self, row: Row[Any]) -> dict[str, Any]:
        view = DeadLetterGroup(
            group=row.group,
            service=self.container.service_name,
            queue=row.queue,
            event=row.event_type,
            error=row.error,
            count=row.count,
            failed_again=row.failed_again,
            oldest_at=row.oldest_at,
            newest_at=row.created_at,
        )
        return view.to_dict()

    def discard(self, transact: Transact, dead_letter_id: UUID) -> None:
        """Delete a dead letter; a log line records it. Raises DeadLetterNotFound, and InvalidState if replayed."""

        def delete_it(session: Session) -> None:
            row = self._lock_waiting(session, dead_letter_id)
            session.execute(delete(self._table()).where(self._table().c.id == dead_letter_id))
            log.warning("dead letter %s discarded: %s %s: %s", dead_letter_id, row.queue, row.message_id, row.error)

        transact(delete_it)

    def replay(self, transact: Transact, dead_letter_id: UUID, by: str) -> Any:
        """Publish a dead letter to its queue, with all its attempts, and record when and by whom it was replayed.

        The row is locked until the broker has confirmed, so that two operators cannot replay it at the same time. Each
        replay has the same message id, so that a repeated one has no second effect. Raises DeadLetterNotFound,
        DeadLetterForged, InvalidState where it was replayed already or its queue cannot take it, ServiceUnavailable
        where nothing was done, and UpstreamTimeout where the message may be in its queue, and the dead letter is kept.
        """
        is_published = False

        def publish_and_record(session: Session) -> dict[str, Any]:
            nonlocal is_published
            row = self._lock_waiting(session, dead_letter_id)
            if row.is_forged:
                raise DeadLetterForged
            self._publish(row)
            is_published = True
            log.warning("dead letter %s replayed into %s by %s", dead_letter_id, row.queue, by)
            replayed = update(self._table()).where(self._table().c.id == dead_letter_id)
            session.execute(replayed.values(replayed_at=func.clock_timestamp(), replayed_by=by))
            return self._view(session.execute(self._select().where(self._table().c.id == dead_letter_id)).one())

        try:
            return transact(publish_and_record)
        except Exception as error:
            if is_published:
                raise UpstreamTimeout(NOT_RECORDED) from error
            raise

    def _lock_waiting(self, session: Session, dead_letter_id: UUID) -> Row[Any]:
        """Lock and return a dead letter that was not replayed yet."""
        letters = self._table()
        row = session.execute(select(letters).where(letters.c.id == dead_letter_id).with_for_update()).one_or_none()
        if row is None:
            raise DeadLetterNotFound
        if row.replayed_at is not None:
            when = row.replayed_at.astimezone(UTC)
            raise InvalidState(
                f"This dead letter was replayed already, at {when:%Y-%m-%dT%H:%M:%SZ} by {row.replayed_by}."
            )
        return row

    def _publish(self, row: Row[Any]) -> None:
        """Publish a dead letter to its queue, with confirms."""
        service = self.container.service_name
        if row.queue not in {queue_name(service, event) for event in EVENTS.values()}:
            # The body of a call is not stored, and its caller no longer waits. No other queue has an event handler.
            raise InvalidState(f"A message of {row.queue} cannot be replayed: only events can, to their handler.")
        message = OutgoingMessage(
            exchange=topology.AGAIN,
            routing_key=row.queue,
            body=row.body,
            message_id=row.message_id or str(row.id),
            event_type=row.event_type,
            correlation_id=row.correlation_id,
            headers=propagated_headers(row.headers),
        )
        outcome = self.publisher.publish([message])
        if message.message_id in outcome.confirmed:
            return
        if message.message_id in outcome.unknown:
            raise UpstreamTimeout(UNCONFIRMED) from outcome.failure
        if outcome.failure is not None:
            raise outcome.failure
        if any(queue_name(consumer, event) == row.queue for event in EVENTS.values() for consumer in event.consumers):
            raise BrokerUnavailable  # the topology has the queue, but it did not accept the message
        raise InvalidState(f"The queue {row.queue} does not exist any more.")

    def _select(self) -> Select[Any]:
        """Select what an operator sees. A body can have megabytes, so only its beginning is read."""
        columns = [column for column in self._table().c if column.name != "body"]
        return select(*columns, func.left(self._table().c.body, SHOWN_BODY).label("body"))

    def _view(self, row: Row[Any], first_replay: UUID | None = None) -> dict[str, Any]:
        view = DeadLetterView(
            id=row.id,
            service=self.container.service_name,
            queue=row.queue,
            event=row.event_type,
            message_id=row.message_id,
            correlation_id=row.correlation_id,
            body=HIDDEN if row.queue in SECRET_QUEUES or row.event_type in SECRET_EVENTS else row.body,
            headers=row.headers,
            error=row.error,
            attempts=row.attempts,
            died_at=row.created_at,
            replayed_at=row.replayed_at,
            replayed_by=row.replayed_by,
            is_forged=row.is_forged,
            has_failed_again=first_replay is not None and first_replay < row.id,
        )
        return view.to_dict()
