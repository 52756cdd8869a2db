"""The connection and channel classes that override private parts of py-amqp."""

from typing import Any

import amqp
from amqp.exceptions import RecoverableConnectionError

from extensions.messaging.wire import frames
from extensions.messaging.wire.frames import DELIVER
from extensions.messaging.wire.properties import frame_handler
from extensions.messaging.wire.transport import BufferedTransport


class FastChannel(amqp.Channel):
    """A channel whose received bodies stay bytes. An operation is the bytes of its frames.

    py-amqp would decode a body by the codec that the sender names. With some codecs (punycode) this takes minutes.
    """

    def __init__(self, connection: amqp.Connection, channel_id: int | None = None, on_open: Any = None) -> None:
        super().__init__(connection, channel_id, auto_decode=False, on_open=on_open)

    def dispatch_method(self, method_sig: tuple[int, int], payload: bytes, content: Any) -> None:
        """Dispatch a received method. A delivery, the most frequent one, is decoded without py-amqp's table lookup."""
        if method_sig == DELIVER and not self.is_closing:
            self._on_basic_deliver(*frames.delivery(payload), content)
        else:
            super().dispatch_method(method_sig, payload, content)

    def send(self, *operations: bytes) -> None:
        """Write the frames of all operations in one piece. Raises CONNECTION_ERRORS or AttributeError."""
        connection = self.connection
        if connection is None:
            raise RecoverableConnectionError("the channel is closed")
        connection.transport.write(b"".join(operations))
        connection.bytes_sent += 1

    def acknowledgement(self, tag: int) -> bytes:
        """Return the frame that acknowledges one message."""
        return frames.acknowledgement(self.channel_id, tag)

    def message(self, body: str, exchange: str, routing_key: str, **properties: Any) -> bytes:
        """Return the frames that publish a transient JSON message, see frames.message()."""
        return frames.message(self.channel_id, self.connection.frame_max, body, exchange, routing_key, **properties)


class FastConnection(amqp.Connection):
    """A connection that one greenlet reads while others write."""

    Channel = FastChannel

    def __init__(self, **options: Any) -> None:
        super().__init__(frame_handler=frame_handler, **options)

    def Transport(self, host: str, connect_timeout: float, _ssl: bool = False, *_timeouts: Any, **options: Any) -> Any:  # noqa: N802
        """Return the transport that the connection reads from and writes to."""
        return BufferedTransport(host, connect_timeout=connect_timeout, **options)

    def blocking_read(self, timeout: float | None = None) -> Any:
        """Read and dispatch one frame. Without a timeout, the socket's timeout need not be set and reset."""
        if timeout is None:
            return self.on_inbound_frame(self.transport.read_frame())
        return super().blocking_read(timeout)
