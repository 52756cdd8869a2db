"""A payment provider that is called over HTTP. payments/simulated_provider.py is a server for it.

    POST <url>/<operation>     Idempotency-Key: <key>
    {"authorisation", "amount", "currency", "payment_method", "reference"}

200 `{"outcome": "approved", "reference": ...}`, also `declined` with a `reason`, `captured`, `voided`, `refunded`;
4xx `{"error": ...}`: refused; anything else: the provider cannot serve now.
"""

import json
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from payments.provider import (
    Approved,
    Call,
    Captured,
    Declined,
    Outcome,
    OutcomeUnknown,
    ProviderRefuses,
    ProviderUnavailable,
    Refunded,
    Voided,
)

MAX_RESPONSE_BYTES = 65_536
REFUSED = range(400, 500)
TOO_MANY_REQUESTS = 429
KINDS: dict[str, type[Approved | Captured | Voided | Refunded]] = {
    "approved": Approved,
    "captured": Captured,
    "voided": Voided,
    "refunded": Refunded,
}


class HttpProvider:
    """Calls the provider at `url`. Each call has a connection of its own; `timeout` bounds each wait on it, in seconds.

    Raises ValueError for a URL that is no http or https address.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self._address = urlsplit(url)
        if self._address.scheme not in {"http", "https"} or not self._address.hostname:
            raise ValueError(f"PAYMENT_PROVIDER_URL is {url!r}; it must be an http or https address")
        self._timeout = timeout

    def ask(self, call: Call) -> Sequence[Outcome]:
        """Make a call. A response that the provider sends twice is read once: the connection ends after the first."""
        connection = self._connect()
        try:
            return (self._exchange(connection, call),)
        finally:
            connection.close()

    def _connect(self) -> HTTPConnection:
        kind = HTTPSConnection if self._address.scheme == "https" else HTTPConnection
        connection = kind(str(self._address.hostname), self._address.port, timeout=self._timeout)
        try:
            connection.connect()
        except OSError as error:
            raise ProviderUnavailable(f"no connection: {error}") from error
        return connection

    def _exchange(self, connection: HTTPConnection, call: Call) -> Outcome:
        headers = {"Content-Type": "application/json", "Idempotency-Key": call.key, "Connection": "close"}
        try:
            connection.request("POST", f"{self._address.path.rstrip('/')}/{call.operation}", _body(call), headers)
            response = connection.getresponse()
            status, content = response.status, response.read(MAX_RESPONSE_BYTES)
        except (OSError, HTTPException) as error:
            raise OutcomeUnknown(f"{type(error).__name__}: {error}") from error
        if status in REFUSED and status != TOO_MANY_REQUESTS:
            raise ProviderRefuses(f"{status}: {content[:200]!r}")
        if status != 200:
            raise ProviderUnavailable(f"{status}: {content[:200]!r}")
        return _outcome(content)


def _body(call: Call) -> str:
    return json.dumps(
        {
            "authorisation": call.authorisation,
            "amount": f"{call.amount:.2f}",
            "currency": call.currency,
            "payment_method": call.method,
            "reference": call.reference,
        }
    )


def _outcome(content: bytes) -> Outcome:
    """Return the outcome that a response states. Raises OutcomeUnknown for a response that states none."""
    try:
        stated: dict[str, Any] = json.loads(content)
        if stated["outcome"] == "declined":
            return Declined(str(stated["reason"]))
        return KINDS[stated["outcome"]](str(stated["reference"]))
    except (ValueError, KeyError, TypeError) as error:
        raise OutcomeUnknown(f"the response cannot be read: {content[:200]!r}") from error
