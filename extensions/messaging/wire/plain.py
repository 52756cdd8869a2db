"""The connection and channel classes that use py-amqp's public API only.

Compared with fast.py, four safeguards are missing:

* a message whose properties or routing key py-amqp cannot decode ends the process;
* after a greenlet is killed in the middle of a write, the broker closes the connection only when the next write
  arrives, because it reads that write as the rest of the first;
* a reply and its acknowledgement are two writes: a connection that is lost between them loses the reply;
* a name or an id of more than 255 bytes is a connection error instead of a ValueError.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import amqp
from amqp.exceptions import RecoverableConnectionError


class PlainChannel(amqp.Channel):
    """A channel whose received bodies stay bytes."""

    def __init__(self, connection: amqp.Connection, channel_id: int | None = None, on_open: Any = None) -> None:
        super().__init__(connection, channel_id, auto_decode=False, on_open=on_open)

    def send(self, *operations: Callable[[], Any]) -> None:
        """Carry out the operations. Raises CONNECTION_ERRORS or AttributeError."""
        if self.connection is None:
            raise RecoverableConnectionError("the channel is closed")
        for operation in operations:
            operation()

    def acknowledgement(self, tag: int) -> Callable[[], Any]:
        """Return the operation that acknowledges one message."""
        return partial(self.basic_ack, tag)

    def message(
        self,
        body: str,
        exchange: str,
        routing_key: str,
        *,
        mandatory: bool = False,
        headers: Mapping[str, str] | None = None,
        **properties: str,
    ) -> Callable[[], Any]:
        """Return the operation that publishes a transient JSON message."""
        given: dict[str, Any] = {name: value for name, value in properties.items() if value}
        if headers:
            given["application_headers"] = headers
        message = amqp.Message(body, content_type="application/json", content_encoding="utf-8", **given)
        return partial(self.basic_publish, message, exchange, routing_key, mandatory=mandatory)


class PlainConnection(amqp.Connection):
    """A connection that one greenlet reads while others write; py-amqp lets one greenlet write at a time."""

    Channel = PlainChannel
