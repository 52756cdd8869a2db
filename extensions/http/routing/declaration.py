"""The declaration of a route, as plain data: the checks, the dispatcher and the OpenAPI document read it."""

import math
from dataclasses import dataclass
from http import HTTPStatus

from contracts.base import PageRequest, Request, View
from contracts.errors import ServiceError
from extensions.http.message.request import Access

EVENT_STREAM = "text/event-stream"


class NoFields(Request):
    """The query or body of a route that takes none."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RouteDeclaration:
    """What a route takes, who may call it, and what it returns."""

    method: str
    path: str
    """The path template, such as `/orders/{order_id}`. All parameters are ids."""
    aliases: tuple[str, ...] = ()
    """Other paths of the same operation."""
    access: Access
    query: type[Request] = NoFields
    """The model of the query. A PageRequest makes the route a list."""
    body: type[Request] | None = None
    body_optional: bool = False
    """True where the body may be left out: the handler then gets the defaults of its fields."""
    response: type[View] | None = None
    """The view of the success body, or of each item of a list."""
    status: int = 200
    """The status of a success."""
    other_statuses: tuple[int, ...] = ()
    """Further success statuses, which the handler chooses."""
    location: str = ""
    """The template of the Location header, with fields of the response body in braces."""
    errors: tuple[type[ServiceError], ...] = ()
    """The errors that do not follow from the rest of the declaration."""
    produces: str = "application/json"
    """The media type of a response whose body is bytes. For text/event-stream the handler returns a StreamResponse."""
    example: str = ""
    """An example of a response that is not JSON, for the OpenAPI document."""
    also_produces: tuple[str, ...] = ()
    """Other media types that the handler can choose for the response."""
    consumes: tuple[str, ...] = ()
    """The media types of a body that is streamed: the handler reads it in pieces, from `request.pieces`."""
    seconds: float = 0
    """The deadline of the handler, if it is not that of all requests."""
    streamed: bool = False
    """The response is sent in chunks while it is made, and ends: Response.pieces. For endless ones see `is_stream`."""
    max_concurrent: int = 0
    """How many of these requests a gateway handles at the same time; 0: as many as all together."""
    idempotent: bool = False
    """Takes an Idempotency-Key."""
    shared_for: float = 0
    """Seconds for which one response serves every caller: math.inf for a constant one, 0 where it is not shared."""
    service: str = ""
    """The service that the handler always calls (the call, if it is one of service_guard.WAITING_CALLS). While that one
    is away, requests are refused before they are read. Empty where the handler often responds without a call, as from
    a cache, or calls several services."""
    compute_heavy: bool = False
    """Waits for much computation, such as a password hash. Few of these requests run at the same time."""
    is_unlimited: bool = False
    """Counts against no rate limit: for a shared response that costs nothing."""
    rate_limit: str | None = None
    """The name of an additional rate limit, in config.yml."""

    @property
    def sheds_load(self) -> bool:
        """True where requests are refused under overload. Shared responses are served even then."""
        return not self.shared_for

    @property
    def rate_limited(self) -> bool:
        """True where requests count against the rate limits. Constant responses have no limit."""
        return self.shared_for < math.inf and not self.is_unlimited

    @property
    def reads_body(self) -> bool:
        """True where the body of a request is read: of a GET never, of a DELETE only where the route declares one."""
        return self.method not in {"GET", "DELETE"} or self.body is not None

    @property
    def paged(self) -> bool:
        """True for lists."""
        return issubclass(self.query, PageRequest)

    @property
    def conditional(self) -> bool:
        """True where one resource is read or changed: GET takes If-None-Match, PUT and PATCH If-Match.

        The handler passes If-Match to the owning service, with `**request.precondition`.
        """
        return (
            self.method in {"GET", "PUT", "PATCH"}
            and self.sheds_load
            and not (self.paged or self.is_stream or self.streamed)
        )

    @property
    def sends_etag(self) -> bool:
        """True where the response is that resource. A 204 has no body that an ETag could identify."""
        return self.conditional and self.status != HTTPStatus.NO_CONTENT

    @property
    def is_stream(self) -> bool:
        """True where the response consists of server-sent events and goes on."""
        return self.produces == EVENT_STREAM
