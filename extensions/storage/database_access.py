"""Access to the service's database for extensions, outside of a worker's transaction."""

from collections.abc import Callable
from typing import Any

from nameko.extensions import SharedExtension
from sqlalchemy import MetaData, Table
from sqlalchemy.orm import Session, sessionmaker


class DatabaseAccess(SharedExtension):
    """The session factory and the tables of one service. Work sets them; the outbox relay and dead letters use them."""

    def __init__(self) -> None:
        super().__init__()
        self.sessions: sessionmaker[Session] | Any = None
        self._metadata: MetaData | None = None
        self.on_outbox_commit: Callable[[], object] | None = None
        """Called after each commit that wrote to the outbox; the relay of the service sets it."""

    def open(self, sessions: "sessionmaker[Session]", metadata: MetaData) -> None:
        """Make the database available; called by Work.setup()."""
        self.sessions, self._metadata = sessions, metadata

    def table(self, name: str) -> Table:
        """Return one of the service's tables. Raises RuntimeError for a service without a database."""
        if self._metadata is None:
            message = f"the table {name} was asked for, but the service has no database: add work = Work(Base)"
            raise RuntimeError(message)
        return self._metadata.tables[name]
