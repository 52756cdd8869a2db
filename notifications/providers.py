"""The dependencies of the notifications service."""

from typing import Any

from nameko import config
from nameko.exceptions import ConfigurationError
from nameko.extensions import DependencyProvider

from extensions.outbound.client import Outbound
from extensions.runtime.parsed_settings import switched_on


class OutboundRequests(DependencyProvider):  # type: ignore[misc]  # Nameko has no types
    """Gives the service requests to the addresses that users name."""

    def setup(self) -> None:
        """Make the client, so that a wrong setting stops the service at its start."""
        try:
            allow_loopback = switched_on(config.get("OUTBOUND_ALLOW_LOOPBACK", "no"))
        except ValueError as error:
            raise ConfigurationError(f"OUTBOUND_ALLOW_LOOPBACK: {error}") from None
        self.outbound = Outbound(allow_loopback=allow_loopback)

    def get_dependency(self, _worker_ctx: Any) -> Outbound:
        """Return it; all workers share it."""
        return self.outbound
