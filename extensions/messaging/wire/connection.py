"""The interface of a connection to RabbitMQ, and the setting that chooses its implementation."""

from collections.abc import Mapping
from typing import Any, Protocol

import amqp
from nameko.exceptions import ConfigurationError

SETTING, WIRES = "AMQP_WIRE", ("fast", "plain")
# The only property of a received message whose properties cannot be decoded. Its value is the reason.
UNREADABLE_HEADER = "x-unreadable"


class Channel(Protocol):
    """What our channels can do beyond py-amqp's. Their received bodies are bytes.

    An operation is made by acknowledgement() or message(), and carried out by send(). Several greenlets may send on
    channels of one connection while another greenlet reads from it.
    """

    def acknowledgement(self, tag: int) -> Any:
        """Return the operation that acknowledges one message."""

    def message(
        self,
        body: str,
        exchange: str,
        routing_key: str,
        *,
        mandatory: bool = False,
        headers: Mapping[str, str] | None = None,
        correlation_id: str = "",
        reply_to: str = "",
        expiration: str = "",
    ) -> Any:
        """Return the operation that publishes a transient JSON message."""

    def send(self, *operations: Any) -> None:
        """Carry out the operations in their order. Raises CONNECTION_ERRORS or AttributeError."""


def connection_class(config: Mapping[str, Any]) -> type[amqp.Connection]:
    """Return the class that AMQP_WIRE names. Raises ConfigurationError where it names none.

    Only the chosen implementation is imported: private parts of py-amqp may be missing in another version of it.
    """
    wire = config.get(SETTING, "fast")
    if wire not in WIRES:
        raise ConfigurationError(f"{SETTING} is {wire!r}, and has to be one of {', '.join(WIRES)}")
    if wire == "plain":
        from extensions.messaging.wire.plain import PlainConnection

        return PlainConnection
    from extensions.messaging.wire.fast import FastConnection

    return FastConnection
