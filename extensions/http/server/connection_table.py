"""The open connections of a listener, what each one waits for, and which one to close when there are too many."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto

from extensions.http.server.connection import Connection

# The automatic garbage collection starts when allocations exceed deallocations by a threshold. While as many
# connections close as open, that does not happen; when it does, it traverses thousands of connections at once and
# delays all requests. A collection after every 32 new connections takes 1 ms.
CONNECTIONS_PER_COLLECTION = 32


class Phase(Enum):
    """What a connection waits for."""

    IDLE = auto()
    """For the client to send a complete head."""
    CLIENT = auto()
    """For the client to send a body or to read a response."""
    SERVER = auto()
    """For us to process the request."""
    STREAM = auto()
    """For nothing: the response goes on. It is closed for another connection only where nothing else can be."""


class ConnectionTable:
    """The open connections, in the order in which their current phase began."""

    def __init__(self, max_connections: int) -> None:
        self.max_connections = max_connections
        self._phases: dict[Connection, Phase] = {}
        self._added = 0

    def __len__(self) -> int:
        return len(self._phases)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._phases))

    @property
    def is_full(self) -> bool:
        """True where another connection needs an eviction."""
        return len(self._phases) >= self.max_connections

    def idle(self) -> list[Connection]:
        """Return the connections that have sent no complete head."""
        return [connection for connection, phase in self._phases.items() if phase is Phase.IDLE]

    def add(self, connection: Connection) -> None:
        """Add a new connection, in the phase IDLE."""
        self._phases[connection] = Phase.IDLE
        self._added += 1
        if self._added % CONNECTIONS_PER_COLLECTION == 0:
            gc.collect(0)

    def remove(self, connection: Connection) -> None:
        """Remove a connection, if it is there."""
        self._phases.pop(connection, None)

    def enter(self, connection: Connection, phase: Phase) -> None:
        """Record that a connection begins a phase. An evicted connection is ignored."""
        if self._phases.pop(connection, None) is not None:
            self._phases[connection] = phase

    @contextmanager
    def waiting_for_client(self, connection: Connection) -> Iterator[None]:
        """Record that the block waits for the client; the phase is SERVER afterwards."""
        self.enter(connection, Phase.CLIENT)
        try:
            yield
        finally:
            self.enter(connection, Phase.SERVER)

    def evict_until_held(self, max_bytes: int) -> int:
        """Close connections until the others hold at most `max_bytes`, first those that wait longest for their client.

        Returns the number of closed connections.
        """
        held = {connection: connection.held_bytes() for connection in self._phases}
        total, closed = sum(held.values()), 0
        for connection, phase in list(self._phases.items()):
            if total <= max_bytes:
                break
            if phase is not Phase.SERVER and held[connection]:
                self._phases.pop(connection)
                connection.drop()
                total, closed = total - held[connection], closed + 1
        return closed

    def evict_slowest(self) -> bool:
        """Close the connection that has waited longest for its client, else the oldest stream. False without both."""
        for wanted in ({Phase.IDLE, Phase.CLIENT}, {Phase.STREAM}):
            for connection, phase in self._phases.items():
                if phase in wanted:
                    self._phases.pop(connection)
                    connection.evict()
                    return True
        return False
