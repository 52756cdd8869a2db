"""The dependencies of the notifications service."""

import re
from dataclasses import dataclass
from typing import Any

from nameko import config
from nameko.exceptions import ConfigurationError
from nameko.extensions import DependencyProvider

from extensions.outbound.client import Outbound
from extensions.outbound.smtp import SmtpClient, SmtpSettings
from extensions.runtime.parsed_settings import switched_on

_ADDRESS = re.compile(r"[^@\s]+@[A-Za-z0-9.-]+")


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


@dataclass(frozen=True, slots=True)
class MailSettings:
    """How mails are sent, and what they say. Without a client, none are."""

    client: SmtpClient | None
    sender: str
    shop_url: str

    @property
    def is_on(self) -> bool:
        """Whether mails are sent."""
        return self.client is not None


class Mails(DependencyProvider):  # type: ignore[misc]  # Nameko has no types
    """Gives the service the mail server that config.yml names."""

    def setup(self) -> None:
        """Read the settings, so that a wrong one stops the service at its start."""
        try:
            settings = SmtpSettings.of(config)
        except ValueError as error:
            raise ConfigurationError(f"the settings of the mails: {error}") from None
        sender = str(config.get("MAIL_FROM") or "shop@localhost")
        if not _ADDRESS.fullmatch(sender):
            raise ConfigurationError(f"MAIL_FROM is {sender!r}; it must be an address, such as shop@example.com")
        shop_url = str(config.get("SHOP_URL") or "http://127.0.0.1:8000")
        self.settings = MailSettings(None if settings is None else SmtpClient(settings), sender, shop_url)

    def get_dependency(self, _worker_ctx: Any) -> MailSettings:
        """Return them; all workers share the client."""
        return self.settings
