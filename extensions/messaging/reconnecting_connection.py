"""A connection to RabbitMQ that one greenlet opens and reads. After each loss it opens a new connection.

Every step has a deadline. Connecting and the set-up together take at most SETUP_TIMEOUT_SECONDS. An open connection is
closed after two heartbeat intervals without a frame. Closing takes at most two seconds. Code that uses the connection
and has waited for the broker until its own deadline calls drop().
"""

import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import amqp
import eventlet
from amqp.exceptions import ChannelError
from eventlet.event import Event as Signal

from extensions.messaging import topology
from extensions.messaging.connection import CONNECTION_ERRORS, BrokerBlocked, BrokerUnavailable, close_quietly, connect
from extensions.runtime.backoff import Backoff
from extensions.runtime.progress import Loop, Loops

log = logging.getLogger(__name__)

# Broker and client each close the connection after two intervals without a frame from the other.
HEARTBEAT_SECONDS = 10
SETUP_TIMEOUT_SECONDS = 15


class ReconnectingConnection:
    """One connection of one service. `purpose` names it in the log.

    `set_up` is called with each new connection before it is read. `on_lost` is called with the error that ended a
    connection or an attempt to open one. `on_blocked` is called when the broker stops accepting messages because it is
    short of memory or disk. None of the three may block for long. Only `set_up` may raise (CONNECTION_ERRORS,
    TopologyMissing).

    An error of a channel ends the connection. With `on_channel_error` it does not: py-amqp has opened the channel again
    when this is called. It runs in the reader, and may raise CONNECTION_ERRORS.
    """

    def __init__(
        self,
        purpose: str,
        service: str,
        set_up: Callable[[amqp.Connection], None],
        on_lost: Callable[[Exception], None],
        on_blocked: Callable[[], None] = lambda: None,
        on_channel_error: Callable[[ChannelError], None] | None = None,
        loops: Loops | None = None,
        peers: "list[ReconnectingConnection] | None" = None,
    ) -> None:
        """`peers` are the other connections of the service, which are tried again as soon as this one is open."""
        self.purpose, self._service, self._loops = purpose, service, loops or Loops()
        self._peers = [] if peers is None else peers
        self._peers.append(self)
        self._pause = Signal()
        self._set_up, self._on_lost, self._on_blocked = set_up, on_lost, on_blocked
        self._on_channel_error = on_channel_error
        self.connection: amqp.Connection | None = None
        """The open connection after its set-up; None while there is none."""
        self.is_blocked = False
        self._raw: amqp.Connection | None = None
        self._is_set_up = False
        self._first_opened = Signal()
        self._attempt = Signal()
        self._last_error: Exception | None = None
        self._is_awaited = True  # whether callers wait for the attempt to connect, because the last one did not fail
        self._stopping = False

    @property
    def problem(self) -> str:
        """Why messages cannot be sent on the connection, in words; "" if they can."""
        if self.is_blocked:
            return "takes no messages (memory or disk alarm)"
        return "" if self.connection is not None else f"is not connected ({self._last_error or 'not yet'})"

    def require(self, seconds: float = 0.0) -> amqp.Connection:
        """Return the open connection. Wait up to `seconds` while it is being opened, unless the last attempt failed.

        Raises BrokerBlocked and BrokerUnavailable.
        """
        if self.is_blocked:
            raise BrokerBlocked
        if self.connection is None and self._is_awaited and seconds > 0:
            self._attempt.wait(timeout=seconds)
        if self.connection is None:
            if isinstance(self._last_error, BrokerUnavailable):
                raise self._last_error
            raise BrokerUnavailable from self._last_error
        return self.connection

    def await_first(self, seconds: float | None = None) -> None:
        """Wait until the connection was opened for the first time or was closed for good, for at most `seconds`."""
        if not self._first_opened.ready():
            self._first_opened.wait(timeout=seconds)

    def drop(self, reason: str) -> None:
        """Close the socket, because the broker does not respond on it. The reader then opens another connection."""
        if self.connection is not None:
            log.warning("closing the connection to RabbitMQ for %s: %s", self.purpose, reason)
            connection = self.connection
            self._forget()
            _shut_down(connection)

    def run(self) -> None:
        """Open and read the connection until this greenlet, the reader, is killed or calls abandon()."""
        with self._loops.running(f"broker.{self.purpose}") as loop:
            self._keep_open(loop)

    def _keep_open(self, loop: Loop) -> None:
        backoff = Backoff()
        while not self._stopping:
            loop.report_progress()
            try:
                with eventlet.Timeout(SETUP_TIMEOUT_SECONDS, TimeoutError("the broker did not complete the set-up")):
                    self._open()
                backoff.reset()
                self._read(loop)
            except (*CONNECTION_ERRORS, topology.TopologyMissing) as error:
                self._lose(error)
                pause = backoff.next_pause()
                what = error or type(error).__name__
                log.warning("RabbitMQ is unavailable for %s (%s); next try in %.1f s", self.purpose, what, pause)
                loop.report_idle(pause)
                self._pause = Signal()
                self._pause.wait(timeout=pause)

    def close(self) -> None:
        """Close the connection for good. Another greenlet calls this, after it has killed the reader."""
        self._end()
        self._lose(OSError("closed"))

    def abandon(self) -> None:
        """Close the socket for good, without the closing handshake of AMQP."""
        self._end()
        if self._raw is not None:
            self._raw.collect()

    def _end(self) -> None:
        self._stopping, self._is_awaited = True, False
        self._last_error = BrokerUnavailable("The service is stopping.")
        self._end_first_wait()

    def _end_first_wait(self) -> None:
        if not self._first_opened.ready():
            self._first_opened.send()

    def _open(self) -> None:
        self.is_blocked = False
        self._raw = connect(
            HEARTBEAT_SECONDS, self._service, on_blocked=self._block, on_unblocked=self._unblock, purpose=self.purpose
        )
        # Before the set-up: calls arrive during it, and their replies need another connection.
        for peer in self._peers:
            peer.retry()
        self._set_up(self._raw)
        self.connection, self._is_set_up = self._raw, True
        self._last_error, self._is_awaited = None, True
        self._attempt.send()
        self._end_first_wait()

    def retry(self) -> None:
        """End the pause before the next try. Until the try has ended, `require` waits for it.

        Otherwise a service that receives calls again would lose their replies for up to the longest pause.
        """
        if self.connection is None and not self._stopping and not self._pause.ready():
            self._is_awaited = True
            self._pause.send()

    def _read(self, loop: Loop) -> None:
        connection: Any = self._raw
        heartbeats = eventlet.spawn(_send_heartbeats, connection, loop)
        try:
            while not self._stopping:
                try:
                    connection.drain_events()
                except ChannelError as error:
                    if self._on_channel_error is None:
                        raise
                    self._on_channel_error(error)
        finally:
            heartbeats.kill()

    def _lose(self, error: Exception) -> None:
        raw, self._raw = self._raw, None
        if not self._is_set_up:
            self._last_error, self._is_awaited = error, False
            self._attempt.send()
        self._is_set_up = False
        self._forget()
        self._on_lost(error)
        if raw is not None:
            close_quietly(raw)

    def _forget(self) -> None:
        self.connection, self.is_blocked = None, False
        if self._attempt.ready():
            self._attempt = Signal()

    def _block(self, _reason: str) -> None:
        self.is_blocked = True
        log.error("RabbitMQ takes no messages: it is short of memory or disk (%s)", self.purpose)
        self._on_blocked()

    def _unblock(self) -> None:
        self.is_blocked = False
        log.warning("RabbitMQ takes messages again (%s)", self.purpose)


def _send_heartbeats(connection: amqp.Connection, reader: Loop) -> None:
    """Send heartbeats. Shut the socket down when none is received, to end the reader, which has no timeout.

    heartbeat_tick() raises if the reader has received nothing for two intervals. Each call that succeeds counts as
    progress of the reader. A reader that hangs in a callback receives nothing, so its progress ends.
    """
    try:
        while True:
            eventlet.sleep(1.0)
            # The heartbeat waits for other writers, which may wait for a broker that no longer reads.
            with eventlet.Timeout(HEARTBEAT_SECONDS, TimeoutError("the broker does not read")):
                connection.heartbeat_tick()
            reader.report_progress()
    except (*CONNECTION_ERRORS, AttributeError) as error:
        log.warning("closing the connection to RabbitMQ: %s", error or type(error).__name__)
        _shut_down(connection)


def _shut_down(connection: amqp.Connection) -> None:
    with suppress(OSError, AttributeError):
        if connection.connected:  # otherwise py-amqp would connect again
            connection.transport.sock.shutdown(socket.SHUT_RDWR)


def peers_of(container: Any) -> list[ReconnectingConnection]:
    """Return the list of all connections of the service that a container runs."""
    peers: list[ReconnectingConnection] = vars(container).setdefault("broker_connections", [])
    return peers
