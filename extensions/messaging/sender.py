"""The connection on which a service sends calls and replies. Nothing is consumed on it.

The broker confirms none of these messages. It only confirms probes: messages that no queue receives, published twice a
second. Probes detect two faults:

* An alarm (the broker is short of memory or disk). The broker reports it to a connection only after that connection has
  published a message, and it does not read that message. With probes, this message is mostly a probe and not a call.
* A broker that completes the handshake of the connection and then does not respond. The write then blocks. A caller
  waits for it until its own deadline. After PROBE_TIMEOUT_SECONDS the connection is closed.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

import amqp
import eventlet
from eventlet import patcher
from eventlet.event import Event as Signal
from eventlet.semaphore import Semaphore
from nameko.extensions import SharedExtension

from contracts.errors import UpstreamTimeout
from extensions.messaging import topology
from extensions.messaging.connection import CONNECTION_ERRORS, BrokerUnavailable, broker_errors, has_own_user
from extensions.messaging.reconnecting_connection import ReconnectingConnection, peers_of
from extensions.runtime.progress import loops_of

log = logging.getLogger(__name__)

_select: Any = patcher.original("select")  # eventlet's would run other greenlets

PROBE_SECONDS = 0.5
PROBE_TIMEOUT_SECONDS = 5.0
# An additional wait after the timeout. If this process was suspended, the confirm has arrived but was not read yet.
READ_SECONDS = 0.2
# No reply has this routing key, and every service has the permission to send replies.
PROBE_ADDRESS = "probe"
NOT_READ = "The message broker does not take messages in time. Try again shortly."
UNKNOWN = "The message broker did not take the message in time. Whether it is sent is unknown."

Returned = Callable[[Exception, str, str, amqp.Message], None]


class Sender(SharedExtension):
    """Sends transient messages. While the broker accepts no messages or is not connected, a send fails at once."""

    def __init__(self) -> None:
        super().__init__()
        self._connection: Any = None
        self._channel: Any = None
        self._probes: Any = None
        self._confirmed = Signal()
        self._greenlets: list[Any] = []
        self._on_return: list[Returned] = []
        self._on_blocked: list[Callable[[], None]] = []
        self._turn = Semaphore(1)

    @property
    def is_blocked(self) -> bool:
        """Tell whether the broker accepts no messages because of an alarm."""
        return bool(self._connection.is_blocked)

    @property
    def problem(self) -> str:
        """Why messages cannot be sent, in words; "" if they can."""
        return str(self._connection.problem)

    def subscribe(self, on_return: Returned, on_blocked: Callable[[], None]) -> None:
        """Register callbacks for messages that no queue received and for the start of an alarm. Call it in setup()."""
        self._on_return.append(on_return)
        self._on_blocked.append(on_blocked)

    def channel(self, seconds: float = 0.0) -> Any:
        """Return the channel to send on, a wire.connection.Channel. Wait up to `seconds` for the connection.

        Raises BrokerBlocked and BrokerUnavailable.
        """
        self._connection.require(seconds)
        return self._channel

    def send(self, channel: Any, operation: Any, seconds: float) -> None:
        """Send an operation of `channel` within `seconds`. Raises BrokerUnavailable: it was not sent.

        Raises UpstreamTimeout if the broker did not read in time: then the operation may still be sent.

        While the broker does not read, a greenlet waits for it, one at a time: a write must not be interrupted, because
        the connection could not be used after a part of a frame.
        """
        with broker_errors():
            if not self._turn.locked() and _takes_bytes(channel.connection.transport.sock):
                channel.send(operation)
                return
        deadline = time.monotonic() + seconds
        if not self._turn.acquire(timeout=seconds):
            raise BrokerUnavailable(NOT_READ)
        writing = eventlet.spawn(_result_of, channel.send, operation)
        writing.link(lambda _greenlet: self._turn.release())
        with eventlet.Timeout(max(0.0, deadline - time.monotonic()), UpstreamTimeout(UNKNOWN)):
            error = writing.wait()
        with broker_errors():
            if error is not None:
                raise error

    def setup(self) -> None:
        """Prepare the connection; start() opens it."""
        self._connection = ReconnectingConnection(
            "sending",
            self.container.service_name,
            self._set_up,
            self._forget_channels,
            self._handle_block,
            loops=loops_of(self.container),
            peers=peers_of(self.container),
        )

    def start(self) -> None:
        """Connect, and wait until it succeeds, as the listener does: a service that cannot reply has not started."""
        if not self._greenlets:
            spawn = self.container.spawn_managed_thread
            self._greenlets = [
                spawn(self._connection.run, identifier="broker.sending"),
                spawn(self._probe, identifier="broker.probe"),
            ]
        self._connection.await_first()

    def stop(self) -> None:
        """Close the connection."""
        self._end_greenlets()
        self._connection.close()

    def kill(self) -> None:
        """Drop the connection without closing it."""
        self._end_greenlets()
        self._connection.abandon()

    def _end_greenlets(self) -> None:
        for greenlet in self._greenlets:
            if greenlet is not eventlet.getcurrent():
                greenlet.kill()

    def _set_up(self, connection: amqp.Connection) -> None:
        channel = connection.channel()
        # The listener declares everything else, at the same time.
        passive = has_own_user(self.container.service_name)
        channel.exchange_declare(topology.RPC_EXCHANGE, "topic", durable=True, auto_delete=False, passive=passive)
        for on_return in self._on_return:
            channel.events["basic_return"].add(on_return)
        probes = connection.channel()
        probes.confirm_select()
        probes.events["basic_ack"].add(lambda *_tag: self._end_probe())
        self._channel, self._probes = channel, probes

    def _forget_channels(self, _error: Exception) -> None:
        self._channel = self._probes = None

    def _handle_block(self) -> None:
        self._end_probe()
        for on_blocked in self._on_blocked:
            on_blocked()

    def _probe(self) -> None:
        with loops_of(self.container).running("broker.probe") as loop:
            while True:
                loop.report_progress()
                eventlet.sleep(PROBE_SECONDS)
                if self._probes is not None and not self.is_blocked and not self._is_answered():
                    self._connection.drop(f"it confirmed no message for {PROBE_TIMEOUT_SECONDS:.0f} s")

    def _is_answered(self) -> bool:
        """Publish a probe, and tell whether the broker confirms it. True also if the connection is lost meanwhile."""
        probes, confirmed = self._probes, Signal()
        self._confirmed = confirmed
        try:
            with eventlet.Timeout(PROBE_TIMEOUT_SECONDS, False):
                probes.basic_publish(amqp.Message("", delivery_mode=1), topology.RPC_EXCHANGE, PROBE_ADDRESS)
                confirmed.wait()
        except (*CONNECTION_ERRORS, AttributeError):
            return True  # the reader opens a new one
        if not confirmed.ready():
            eventlet.sleep(READ_SECONDS)
        return bool(confirmed.ready() or probes is not self._probes or self.is_blocked)

    def _end_probe(self) -> None:
        if not self._confirmed.ready():
            self._confirmed.send()


def _takes_bytes(sock: Any) -> bool:
    """Tell whether the kernel takes more bytes for this socket, as far as it is known without a write."""
    if sock.fileno() < 0:
        return True  # it is closed: the write fails at once
    waiting = _select.poll()
    waiting.register(sock.fileno(), _select.POLLOUT)
    return bool(waiting.poll(0))


def _result_of(send: Callable[[Any], None], operation: Any) -> Exception | None:
    """Return the error instead of raising it. The caller may have left at its deadline, and would not catch it."""
    try:
        send(operation)
    except Exception as error:  # noqa: BLE001  (for the one who waits)
        return error
    return None
