"""What goes back to a client."""

from typing import Any, Self

from contracts.base import Replayed
from contracts.errors import ServiceError
from extensions.http.conditional import NOT_MODIFIED
from extensions.http.errors import REPLAYED, problem, problem_headers
from extensions.http.rate_limits import tell_refusal
from extensions.http.request import HttpRequest
from extensions.http.strict_json import dump

BODILESS = frozenset({204, NOT_MODIFIED})


class Answer:
    """An answer: `body` is plain JSON, or bytes as they are; `status` 0 means the route's own."""

    def __init__(self, body: Any = None, *, status: int = 0, headers: dict[str, str] | None = None) -> None:
        self.body, self.status, self.headers = body, status, dict(headers or {})
        if isinstance(body, Replayed):
            self.headers |= REPLAYED
        self.content = b""

    @classmethod
    def of_problem(cls, error: ServiceError, request: HttpRequest) -> Self:
        """Return the answer that says what is wrong with a request, or with us."""
        tell_refusal(error, request.limit_headers)
        body = problem(error, request.trace.request_id, request.instance)
        return cls(body, status=error.status, headers=problem_headers(error))

    def finished(self, request: HttpRequest) -> Self:
        """Add what every answer has, and encode the body."""
        self.headers["X-Request-ID"] = request.trace.request_id
        self.headers |= request.limit_headers
        if self.status not in BODILESS:
            self.content = self.body if isinstance(self.body, bytes) else dump(self.body)
            self.headers.setdefault("Content-Type", "application/json")
            self.headers["Content-Length"] = str(len(self.content))
        return self
