"""The unit of work: one transaction around a service method, with its outbox and its inbox in it.

The entrypoint that opens the transaction commits it *before* it acks the message or sends the reply (see
messaging/event_handler.py and rpc/server.py); use cases never commit. The same commit makes the published events
visible to the outbox relay.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from uuid import UUID

import psycopg2.extensions
from nameko import config
from nameko_sqlalchemy import Database
from sqlalchemy import Table, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker

from contracts.base import Cause, Event, Received
from extensions.observability.metrics import Metrics
from extensions.observability.traces import current_trace
from extensions.runtime.addresses import database_url
from extensions.runtime.progress import report_current_progress
from extensions.storage import inbox, outbox, timers
from extensions.storage.bulk import insert_rows
from extensions.storage.database_access import DatabaseAccess
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
from extensions.storage.lock_timeouts import LockTimeouts
from extensions.storage.periodic import PeriodicMethods

log = logging.getLogger(__name__)

LOCK_TIMEOUT = "lock_timeout"


class UnitOfWork:
    """The transactions of one worker, which gets it as `self.work`."""

    def __init__(self, provider: "Work") -> None:
        self._provider = provider
        self._session: Session | None = None
        self.lock_timeouts = LockTimeouts("", "")
        """How long the transactions wait for locked rows. The entrypoint sets that of its method."""
        self._outbox: list[dict[str, Any]] = []
        self._before_commit: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self._after_commit: list[tuple[Callable[..., object], tuple[Any, ...]]] = []

    @property
    def session(self) -> Session:
        """The session of the open transaction. It takes no connection before its first statement."""
        if self._session is None:
            message = "no transaction is open: use `with self.work.transaction()`"
            raise RuntimeError(message)
        return self._session

    @contextmanager
    def transaction(self, lock_timeout: str = "") -> Iterator[Session]:
        """Open a transaction: committed at the end of the block, rolled back by any exception.

        `lock_timeout` ("500ms") overrides that of `lock_timeouts`. Raises LockTimeout for a row that another
        transaction holds, DatabaseUnavailable or CommitUnknown for an outage of PostgreSQL.
        """
        if self._session is not None:
            message = "a transaction is open already"
            raise RuntimeError(message)
        self._session = self._provider.Session(info={LOCK_TIMEOUT: lock_timeout or self.lock_timeouts.current})
        try:
            yield self._session
            self._commit()
            report_current_progress()
        except DBAPIError as error:
            if sqlstate(error) == LOCK_NOT_AVAILABLE:
                if not lock_timeout:
                    self.lock_timeouts.note_timeout()
                raise LockTimeout from error
            if is_outage(error):
                raise DatabaseUnavailable from error
            raise
        except PoolTimeout as error:
            raise DatabaseUnavailable from error
        finally:
            self._session.close()
            self._session = None
            self._discard_pending()

    def publish(self, event: Event, cause: Cause | None = None) -> UUID:
        """Write `event` to the outbox of this transaction. Returns its message id.

        `cause` is the request or the received event that led to it; the current trace by default. Raises RuntimeError
        outside of a transaction: the event would be discarded with the next one.
        """
        if self._session is None:
            message = f"{event.event_type} is published outside of a transaction: use `with self.work.transaction()`"
            raise RuntimeError(message)
        if self._provider.storage.on_outbox_commit is None:
            message = "nothing relays the outbox of this service: let it inherit from Operations"
            raise RuntimeError(message)
        row = outbox.new_row(event, cause or current_trace())
        self._outbox.append(row)
        message_id: UUID = row["message_id"]
        return message_id

    def around_commit(self, call: Callable[..., object], *arguments: Any) -> None:
        """Call `call(*arguments)` just before the commit and again after it.

        For cache invalidations. The first call invalidates even if the process crashes right after the commit;
        the second call removes what was read from the database and cached in between. If the result of the commit
        is unknown, both calls are made.
        """
        self._before_commit.append((call, arguments))
        self.after_commit(call, *arguments)

    def after_commit(self, call: Callable[..., object], *arguments: Any) -> None:
        """Call `call(*arguments)` once the transaction is committed. A failure of the call is only logged."""
        self._after_commit.append((call, arguments))

    def detached_transaction(self) -> AbstractContextManager[Session]:
        """Open a transaction that is not of this worker, for a greenlet that outlives it. See `transaction`."""
        return UnitOfWork(self._provider).transaction()

    def is_healthy(self) -> bool:
        """Return True if the database responds. Raises DatabaseUnavailable otherwise."""
        with self.transaction() as session:
            return session.scalar(text("SELECT 1")) == 1

    def table(self, name: str) -> Table:
        """Return one of the service's messaging tables."""
        return self._provider.table(name)

    def trigger(self, method: Callable[..., Any], *kinds: str) -> None:
        """Run `method` after the commit: a method of this service with @periodic, or with @executes.

        `kinds` are those of the stored work items; without them, all kinds are looked for.
        """
        self.after_commit(self._provider.periodic_methods.trigger, method.__name__, *kinds)

    def claim_timer(self, name: str, seconds: float, *, at_once: bool = False) -> bool:
        """Tell whether this transaction is to run the timer `name` in this interval of `seconds`."""
        return timers.claim(self.session, self.table("timers"), name, seconds, at_once=at_once)

    def add_to_inbox(self, events: Sequence[Received[Any]]) -> list[Received[Any]]:
        """Add `events` to the inbox and return those that this service has not handled yet, in their order."""
        return inbox.add_new(self.session, events)

    def _discard_pending(self) -> None:
        """Discard the events and hooks of the transaction that ended."""
        self._outbox.clear()
        self._before_commit.clear()
        self._after_commit.clear()

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
                raise  # PostgreSQL reports that it did not commit
            _call_all(self._before_commit)  # the commit may have taken place: make the calls that are due after it
            raise CommitUnknown from error
        if self._outbox and self._provider.storage.on_outbox_commit is not None:
            self._provider.storage.on_outbox_commit()
        _call_all(self._after_commit)


def _set_lock_timeout(session: Session, _transaction: Any, connection: Any) -> None:
    """Set the lock_timeout of a transaction when it takes its connection. It is sent with the first statement."""
    connection.connection.dbapi_connection.lock_timeout = session.info.get(LOCK_TIMEOUT, "")


def _call_all(hooks: Sequence[tuple[Callable[..., object], tuple[Any, ...]]]) -> None:
    for call, arguments in hooks:
        try:
            call(*arguments)
        except Exception:
            log.exception("a hook of the commit failed")


class Work(Database):
    """Gives a service its database: `work = Work(Base)`."""

    storage = DatabaseAccess()
    periodic_methods = PeriodicMethods()
    metrics = Metrics()

    def setup(self) -> None:
        """Make the engine. Raises RuntimeError where database calls would block the whole process."""
        if psycopg2.extensions.get_wait_callback() is None:
            message = "psycopg2 is not green: start services with `nameko run`, which lets eventlet patch it"
            raise RuntimeError(message)
        bound_every_wait()
        self.engine = make_engine(database_url(config, self.container.service_name, self.declarative_base.__name__))
        pool: Any = self.engine.pool
        self.metrics.gauge("database_connections_in_use", "Connections lent out by the pool.", pool.checkedout)
        self.Session = sessionmaker(bind=self.engine, expire_on_commit=False)
        event.listens_for(self.Session, "after_begin")(_set_lock_timeout)
        self.storage.open(self.Session, self.declarative_base.metadata)

    def table(self, name: str) -> Table:
        """Return a messaging table of this service."""
        base: type[DeclarativeBase] = self.declarative_base
        return base.metadata.tables[name]

    def get_dependency(self, worker_ctx: Any) -> UnitOfWork:
        """Return the worker's own unit of work."""
        return UnitOfWork(self)

    def stop(self) -> None:
        """Close the connections; calling it again does nothing."""
        self.engine.dispose()

    kill = stop

    def worker_teardown(self, worker_ctx: Any) -> None:
        """Do nothing: transaction() has closed the session."""
