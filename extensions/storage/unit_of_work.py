"""The unit of work: one transaction around a service method, with its outbox and its inbox in it.

Whoever opens the transaction commits it *before* the message is acked or the reply is sent (see events.py, rpc.py);
use cases never commit. What was published becomes visible to the relay by that same commit.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg2.extensions
from nameko import config
from nameko_sqlalchemy import Database
from sqlalchemy import Table, Text, Uuid, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker

from contracts.base import Cause, Event, Received, StoredCause
from contracts.events import handler_name
from contracts.ids import new_id
from extensions.observability.metrics import Metrics
from extensions.observability.traces import current_trace
from extensions.storage import timers
from extensions.storage.bulk import insert_rows
from extensions.storage.engine import (
    LOCK_NOT_AVAILABLE,
    CommitUnknown,
    DatabaseUnavailable,
    LockTimeout,
    bound_every_wait,
    is_outage,
    make_engine,
    sqlstate,
)
from extensions.storage.periodic import PeriodicMethods
from extensions.storage.storage import Storage

log = logging.getLogger(__name__)

# The same text however many messages there are, so that it is compiled once.
ENTER_INBOX = text(
    "INSERT INTO inbox (message_id, handler)"
    " SELECT * FROM unnest(CAST(:message_ids AS uuid[]), CAST(:handlers AS text[]))"
    " ON CONFLICT DO NOTHING RETURNING message_id, handler"
).columns(message_id=Uuid, handler=Text)
SET_LOCK_TIMEOUT = text("SELECT set_config('lock_timeout', :value, true)")


class UnitOfWork:
    """What a worker gets as `self.work`."""

    def __init__(self, provider: "Work") -> None:
        self._provider = provider
        self._session: Session | None = None
        self._outbox: list[dict[str, Any]] = []
        self._before_commit: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self._after_commit: list[tuple[Callable[..., object], tuple[Any, ...]]] = []

    @property
    def session(self) -> Session:
        """The session of the open transaction; the database is asked for nothing before its first use."""
        if self._session is None:
            message = "no transaction is open: use `with self.work.transaction()`"
            raise RuntimeError(message)
        return self._session

    @contextmanager
    def transaction(self, lock_timeout: str = "") -> Iterator[Session]:
        """Open a transaction: committed at the end of the block, rolled back by any exception.

        `lock_timeout` ("500ms") is for those with less patience than the others. Raises DatabaseUnavailable or
        CommitUnknown where PostgreSQL is the cause.
        """
        if self._session is not None:
            message = "a transaction is open already"
            raise RuntimeError(message)
        self._session = self._provider.Session()
        try:
            if lock_timeout:
                self._session.execute(SET_LOCK_TIMEOUT, {"value": lock_timeout})
            yield self._session
            self._commit()
        except DBAPIError as error:
            if sqlstate(error) == LOCK_NOT_AVAILABLE:
                raise LockTimeout from error
            if is_outage(error):
                raise DatabaseUnavailable from error
            raise
        except PoolTimeout as error:
            raise DatabaseUnavailable from error
        finally:
            self._session.close()
            self._session = None
            self.withdraw()

    def publish(self, event: Event, cause: Cause | None = None) -> UUID:
        """Write `event` to the outbox of this transaction. Returns the message id that it will have."""
        if self._provider.storage.on_outbox_commit is None:
            message = "nothing relays the outbox of this service: let it inherit from Operations"
            raise RuntimeError(message)
        message_id = new_id()
        cause = cause or current_trace()
        headers = {"x-request-id": cause.request_id, "traceparent": cause.traceparent}
        if isinstance(cause, Received | StoredCause):
            headers["causation-id"] = str(cause.message_id)
        self._outbox.append(
            {
                "message_id": message_id,
                "event_type": event.event_type,
                "body": event.to_json(),
                "correlation_id": event.correlation_id,
                "headers": headers,
            }
        )
        return message_id

    def around_commit(self, call: Callable[..., object], *arguments: Any) -> None:
        """Call `call(*arguments)` just before the commit and again after it.

        For invalidations: before, so that a crash right after the commit leaves nothing stale behind; after, for what
        was read from the database in between. Also where nobody knows whether the commit took place.
        """
        self._before_commit.append((call, arguments))
        self.after_commit(call, *arguments)

    def after_commit(self, call: Callable[..., object], *arguments: Any) -> None:
        """Call `call(*arguments)` once the transaction is committed; its failure is logged and harms nothing."""
        self._after_commit.append((call, arguments))

    def is_healthy(self) -> bool:
        """Tell whether the database answers; raises DatabaseUnavailable or answers True."""
        with self.transaction() as session:
            return session.scalar(text("SELECT 1")) == 1

    def table(self, name: str) -> Table:
        """Return one of the service's messaging tables."""
        return self._provider.table(name)

    def withdraw(self) -> None:
        """Forget what was published and hooked in this transaction so far: its changes were rolled back."""
        self._outbox.clear()
        self._before_commit.clear()
        self._after_commit.clear()

    def wake(self, method: str) -> None:
        """Run the service's @periodic `method` as soon as the transaction is committed."""
        self.after_commit(self._provider.alarms.ring, method)

    def claim_timer(self, name: str, seconds: float, *, at_once: bool = False) -> bool:
        """Tell whether this transaction is the one to run the timer `name` in this interval of `seconds`."""
        return timers.claim(self.session, self.table("timers"), name, seconds, at_once=at_once)

    def first_time(self, events: Sequence[Received[Any]]) -> list[Received[Any]]:
        """Enter `events` into the inbox and return those that this service has not dealt with yet, in their order."""
        entries = {(received.message_id, handler_name(type(received.event))): received for received in events}
        message_ids, handlers = zip(*sorted(entries), strict=True)  # sorted: two replicas wait for each other in turn
        entered = self.session.execute(ENTER_INBOX, {"message_ids": [*message_ids], "handlers": [*handlers]})
        fresh = {tuple(row) for row in entered}
        return [received for entry, received in entries.items() if entry in fresh]

    def _commit(self) -> None:
        session = self.session
        session.flush()
        if self._outbox:
            # One statement for all rows: their order in the outbox is the order of publish().
            insert_rows(session, self._provider.table("outbox"), self._outbox)
        _call_all(self._before_commit)
        try:
            session.commit()
        except Exception as error:
            if isinstance(error, DBAPIError) and sqlstate(error):
                raise  # PostgreSQL says itself that nothing was done
            _call_all(self._before_commit)  # it may have taken place: then these are due as after any other
            raise CommitUnknown from error
        if self._outbox and self._provider.storage.on_outbox_commit is not None:
            self._provider.storage.on_outbox_commit()
        _call_all(self._after_commit)


def _call_all(hooks: Sequence[tuple[Callable[..., object], tuple[Any, ...]]]) -> None:
    for call, arguments in hooks:
        try:
            call(*arguments)
        except Exception:
            log.exception("a hook of the commit failed")


class Work(Database):
    """Gives a service its database: `work = Work(Base)`."""

    storage = Storage()
    alarms = PeriodicMethods()
    metrics = Metrics()

    def setup(self) -> None:
        """Make the engine and check that database calls do not block the whole process."""
        if psycopg2.extensions.get_wait_callback() is None:
            message = "psycopg2 is not green: start services with `nameko run`, which lets eventlet patch it"
            raise RuntimeError(message)
        bound_every_wait()
        self.engine = make_engine(config["DB_URIS"][f"{self.container.service_name}:{self.declarative_base.__name__}"])
        pool: Any = self.engine.pool
        self.metrics.gauge("database_connections_in_use", "Connections lent out by the pool.", pool.checkedout)
        self.Session = sessionmaker(bind=self.engine, expire_on_commit=False)
        self.storage.open(self.Session, self.declarative_base.metadata)

    def table(self, name: str) -> Table:
        """Return a messaging table of this service."""
        base: type[DeclarativeBase] = self.declarative_base
        return base.metadata.tables[name]

    def get_dependency(self, worker_ctx: Any) -> UnitOfWork:
        """Return the worker's own unit of work."""
        return UnitOfWork(self)

    def stop(self) -> None:
        """Close the connections; a second time does no harm."""
        self.engine.dispose()

    kill = stop

    def worker_teardown(self, worker_ctx: Any) -> None:
        """Nothing is left to close: transaction() has done it."""
