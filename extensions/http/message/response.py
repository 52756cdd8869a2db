"""The response that a handler returns and the server sends."""

from collections.abc import Iterator
from typing import Any, Protocol, Self

from contracts.base import Replayed
from contracts.errors import ServiceError
from extensions.http.message.conditional import NOT_MODIFIED
from extensions.http.message.errors import REPLAYED, add_exhausted_limit, problem, problem_headers
from extensions.http.message.request import HttpRequest
from extensions.http.message.strict_json import dump

DELETE = b"\x7f"  # the one ASCII character that `etag` escapes and `dump` does not
BODILESS = frozenset({204, NOT_MODIFIED})


class StreamedBytes(Protocol):
    """What a streamed response sends: pieces that are made while it is sent."""

    def __iter__(self) -> Iterator[bytes]:
        """Yield the pieces."""

    def close(self) -> None:
        """Called in the end, whether the response was sent completely or not."""


class Response:
    """An HTTP response. `body` is plain JSON, or bytes that are sent as they are. `status` 0: the status of the route.

    `is_shared` is true for bytes that stay in memory after the response, because other responses use them too.
    """

    def __init__(
        self, body: Any = None, *, status: int = 0, headers: dict[str, str] | None = None, is_shared: bool = False
    ) -> None:
        self.body, self.status, self.headers, self.is_shared = body, status, dict(headers or {}), is_shared
        if isinstance(body, Replayed):
            self.headers |= REPLAYED
        self.content = b""
        self.stream: Any = None
        """What goes on after `content` (extensions/http/streams), None for a response that ends with it."""
        self.pieces: StreamedBytes | None = None
        """Set for a response that is sent in chunks while it is made; `body` is None then."""
        self._encoded: bytes | None = None

    @classmethod
    def of_problem(cls, error: ServiceError, request: HttpRequest) -> Self:
        """Return the problem details response of `error`."""
        add_exhausted_limit(error, request.limit_headers)
        body = problem(error, request.trace.request_id, request.instance)
        return cls(body, status=error.status, headers=problem_headers(error))

    def etag_source(self) -> Any:
        """Return the input of `etag`: the encoded body, or the body itself if `etag` would encode it differently."""
        content = self._encode()
        return content if self.is_shared or (content.isascii() and DELETE not in content) else self.body

    def finalize(self, request: HttpRequest) -> Self:
        """Add the headers that depend on the request, and encode the body into `content`."""
        self.headers["X-Request-ID"] = request.trace.request_id
        self.headers |= request.limit_headers
        if self.pieces is not None:
            return self
        if self.status not in BODILESS:
            self.content = self._encode()
            self.headers.setdefault("Content-Type", "application/json")
            self.headers["Content-Length"] = str(len(self.content))
        return self

    def _encode(self) -> bytes:
        if self._encoded is None:
            self._encoded = self.body if isinstance(self.body, bytes) else dump(self.body)
        return self._encoded
