"""What goes back to a client."""

from typing import Any, Self

from contracts.base import Replayed
from contracts.errors import ServiceError
from extensions.http.message.conditional import NOT_MODIFIED
from extensions.http.message.errors import REPLAYED, problem, problem_headers, tell_refusal
from extensions.http.message.request import HttpRequest
from extensions.http.message.strict_json import dump

DELETE = b"\x7f"  # the one character of ASCII that `etag` has escaped and an answer has not
BODILESS = frozenset({204, NOT_MODIFIED})


class Response:
    """An answer: `body` is plain JSON, or bytes as they are; `status` 0 means the route's own."""

    def __init__(self, body: Any = None, *, status: int = 0, headers: dict[str, str] | None = None) -> None:
        self.body, self.status, self.headers = body, status, dict(headers or {})
        if isinstance(body, Replayed):
            self.headers |= REPLAYED
        self.content = b""
        self._encoded: bytes | None = None

    @classmethod
    def of_problem(cls, error: ServiceError, request: HttpRequest) -> Self:
        """Return the answer that says what is wrong with a request, or with us."""
        tell_refusal(error, request.limit_headers)
        body = problem(error, request.trace.request_id, request.instance)
        return cls(body, status=error.status, headers=problem_headers(error))

    def tagged(self) -> Any:
        """Return what to make the ETag of: the body, where its bytes are not the very ones that `etag` would make."""
        content = self._encode()
        return content if content.isascii() and DELETE not in content else self.body

    def finished(self, request: HttpRequest) -> Self:
        """Add what every answer has, and encode the body."""
        self.headers["X-Request-ID"] = request.trace.request_id
        self.headers |= request.limit_headers
        if self.status not in BODILESS:
            self.content = self._encode()
            self.headers.setdefault("Content-Type", "application/json")
            self.headers["Content-Length"] = str(len(self.content))
        return self

    def _encode(self) -> bytes:
        if self._encoded is None:
            self._encoded = self.body if isinstance(self.body, bytes) else dump(self.body)
        return self._encoded
