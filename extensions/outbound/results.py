"""What a request to an address that a user named can end with."""

from dataclasses import dataclass

TOTAL_SECONDS = 15.0
"""How long a request may take."""


class HostUnknown(Exception):
    """The name has no address, or the name servers do not respond."""


class RequestFailed(Exception):
    """There was no response. The text says why, in words for the owner of the target."""


class RequestTimeout(RequestFailed):
    """A step took longer than its deadline."""


@dataclass(frozen=True, slots=True)
class Response:
    """The beginning of a response."""

    status: int
    body: bytes
    retry_after: str | None = None
    """The header, as it was sent."""


class MailRefused(Exception):
    """The mail server refuses the mail for good."""


class MailDeferred(Exception):
    """The mail was not taken; a later attempt may succeed."""


class MailUncertain(Exception):
    """The connection ended after the content was sent: the server may have taken the mail."""
