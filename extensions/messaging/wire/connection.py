"""The connection and channel classes that override py-amqp's."""

from typing import Any

import amqp
from amqp.exceptions import RecoverableConnectionError

from extensions.messaging.wire import frames
from extensions.messaging.wire.frames import DELIVER
from extensions.messaging.wire.transport import BufferedTransport


class BytesChannel(amqp.Channel):
    """A channel whose bodies stay bytes.

    py-amqp would decode them by whatever codec the sender names, and with some (punycode) that takes for ever.
    """

    def __init__(self, connection: amqp.Connection, channel_id: int | None = None, on_open: Any = None) -> None:
        super().__init__(connection, channel_id, auto_decode=False, on_open=on_open)

    def dispatch_method(self, method_sig: tuple[int, int], payload: bytes, content: Any) -> None:
        """Hand on what came; a delivery, which is nearly all of it, without looking up what its fields are."""
        if method_sig == DELIVER and not self.is_closing:
            self._on_basic_deliver(*frames.delivery(payload), content)
        else:
            super().dispatch_method(method_sig, payload, content)

    def send(self, frames: bytes) -> None:
        """Write finished frames (frames.py) in one piece. Raises CONNECTION_ERRORS or AttributeError."""
        connection = self.connection
        if connection is None:
            raise RecoverableConnectionError("the channel is closed")
        connection.transport.write(frames)
        connection.bytes_sent += 1

    def acknowledgement(self, tag: int) -> bytes:
        """Return the frame that acknowledges one message; see send()."""
        return frames.acknowledgement(self.channel_id, tag)

    def message(self, body: str, exchange: str, routing_key: str, **properties: Any) -> bytes:
        """Return the frames of a transient JSON message, see frames.message() and send()."""
        return frames.message(self.channel_id, self.connection.frame_max, body, exchange, routing_key, **properties)


class SharedConnection(amqp.Connection):
    """A connection that one greenlet reads while others write.

    py-amqp's publish looks for a `connection.blocked` before it writes, by reading from the socket: in a second
    greenlet that steals frames from the reader. Without the capability it does not, and a blocked broker is noticed by
    deadlines.
    """

    Channel = BytesChannel
    negotiate_capabilities = {  # noqa: RUF012  (py-amqp's own way)
        "consumer_cancel_notify": True,
        "connection.blocked": False,
        "authentication_failure_close": True,
    }

    def Transport(self, host: str, connect_timeout: float, _ssl: bool = False, *_timeouts: Any, **options: Any) -> Any:  # noqa: N802
        """Return what py-amqp reads from and writes to."""
        return BufferedTransport(host, connect_timeout=connect_timeout, **options)

    def blocking_read(self, timeout: float | None = None) -> Any:
        """Read one frame and hand it on; without a deadline there is nothing to set and to set back."""
        if timeout is None:
            return self.on_inbound_frame(self.transport.read_frame())
        return super().blocking_read(timeout)
