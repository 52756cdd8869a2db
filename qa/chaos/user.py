"""A client of the load and of the probes: it logs in again when necessary, and counts its responses by status."""

import http.client
import threading
import time
from collections import Counter

from qa.support.client import Client

RETRY_SECONDS = 300.0  # a request must get a final response within so many seconds, despite faults
TOKEN_SECONDS = 30.0  # until a new token must be accepted: longer than a clock fault lasts
NO_RESPONSE = (OSError, http.client.HTTPException)


class Account:
    """A user's credentials, and the token that all connections of the user share."""

    def __init__(self, email, password):
        self.token, self._lock = None, threading.Lock()
        self.credentials = {"email": email, "password": password}

    def renew(self, client, refused):
        """Log in again, once for all connections whose token was refused."""
        with self._lock:
            if self.token == refused:
                status, content = client.request_until_final("POST", "/users/login", self.credentials)
                if status != http.client.OK:
                    raise RuntimeError(f"no login: {status} {content}")
                self.token = content["access_token"]


class User(Client):
    """A client of one user. It logs in again when the token has expired, and counts the responses."""

    def __init__(self, url, account, responses=None):
        super().__init__(url)
        self.url, self.account, self.responses = url, account, Counter() if responses is None else responses
        if account.token is None:
            account.renew(self, None)
        self.token = account.token

    def new_connection(self, responses=None):
        """Return a client of the same user with its own connection."""
        return User(self.url, self.account, self.responses if responses is None else responses)

    def request(self, method, path, body=None, headers=None):
        """As Client.request, but replaces a token that has expired or was issued by a clock that has jumped back."""
        deadline = time.monotonic() + TOKEN_SECONDS
        while True:
            try:
                status, content = super().request(method, path, body, headers)
            except NO_RESPONSE:
                self.responses["no response"] += 1
                raise
            self.responses[f"{status} {content.get('code', '')}".strip() if status >= 400 else str(status)] += 1
            if status != 401 or path == "/users/login" or time.monotonic() > deadline:
                return status, content
            time.sleep(0.5)
            self.account.renew(self, self.token)
            self.token = self.account.token

    def request_until_final(self, method, path, body=None, headers=None, retry_seconds=RETRY_SECONDS):
        """Repeat a request until its response is final; returns (status, body), status 0 after `retry_seconds`."""
        deadline, tries = time.monotonic() + retry_seconds, 0
        while True:
            tries += 1
            try:
                status, content = self.request(method, path, body, headers)
            except NO_RESPONSE as error:
                status, content = 0, {"code": type(error).__name__}
            in_use = status == 409 and content.get("code") == "IDEMPOTENCY_KEY_IN_USE"
            if not (status in {0, 503, 504} or in_use) or time.monotonic() > deadline:
                return status, content
            time.sleep(0.05 * min(tries, 10))
