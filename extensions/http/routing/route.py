"""HTTP entrypoints: one `@route` declaration says all there is to know about a route.

    @route("POST", "/orders", access=Access.USER, body=CreateOrder, status=201, idempotent=True)
    def create_order(self, request):
        order = self.services.orders.create_order(
            **request.body, actor=request.actor, idempotency_key=request.idempotency_key
        )
        return Answer(order, headers={"Location": f"/orders/{order['id']}"})

By the time the method runs, the caller is known and may call it, and path, query and body are valid.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

from nameko.extensions import Entrypoint, register_entrypoint

from contracts.base import PageRequest, Request, View
from contracts.errors import ServiceError
from extensions.http.limits.overload import CircuitBreaker, SharedResponse
from extensions.http.limits.rate_limits import RequestLimits
from extensions.http.message.conditional import precondition
from extensions.http.message.request import Access, HttpRequest
from extensions.http.message.response import Response
from extensions.http.routing.authentication import AccessTokens
from extensions.http.routing.dispatcher import HttpServer
from extensions.observability.traces import continue_trace
from extensions.runtime.interruptions import INTERRUPTIONS, Interrupted


class NoFields(Request):
    """The query or body of a route that takes none."""


class Route(Entrypoint):
    """One route of the API: its declaration, and the checks that follow from it."""

    tokens = AccessTokens()
    server = HttpServer()
    limits = RequestLimits()

    def __init__(
        self,
        method: str,
        path: str,
        *,
        aliases: tuple[str, ...] = (),
        access: Access,
        query: type[Request] = NoFields,
        body: type[Request] | None = None,
        answer: type[View] | None = None,
        status: int = 200,
        also: tuple[int, ...] = (),
        location: str = "",
        errors: tuple[type[ServiceError], ...] = (),
        produces: str = "application/json",
        idempotent: bool = False,
        kept: float = 0,
        costly: bool = False,
        limit: str | None = None,
    ) -> None:
        """Declare a route.

        `path` has its parameters in braces; all of them are ids. `answer` is the view of the success body, or of the
        items where `query` is a PageRequest. `also` are other success statuses, which the handler chooses. `location`
        is the path of what was made, with fields of the answer in braces. `errors` are those that do not follow from
        the rest of the declaration. `produces` is the media type of an answer that is bytes. `idempotent` routes take
        an Idempotency-Key. Where `kept` is not 0, the answer is the same for everybody, and may be that many seconds
        old, math.inf for one that is made once: such a route answers even when there is too much else to do. `costly`
        ones wait for much computation: few run at once. `limit` names a rate limit of its own, in config.yml.
        """
        super().__init__()
        self.method, self.path, self.aliases, self.access = method, path, aliases, access
        self.query, self.body, self.answer, self.status = query, body, answer, status
        self.also, self.location, self.errors, self.produces = also, location, errors, produces
        self.idempotent, self.costly, self.limit = idempotent, costly, limit
        self.kept = SharedResponse(kept) if kept else None
        self.limited = kept < math.inf
        """False for what costs nothing: nobody is refused it for having asked too often."""
        self.rest = CircuitBreaker()

    @property
    def shed(self) -> bool:
        """True where it is refused when there is too much else to do."""
        return self.kept is None

    @property
    def paged(self) -> bool:
        """True for lists."""
        return issubclass(self.query, PageRequest)

    @property
    def conditional(self) -> bool:
        """True where the answer is one resource: it has an ETag, GET takes If-None-Match, PUT and PATCH If-Match.

        The handler passes that on, with `**request.precondition`.
        """
        return self.method in {"GET", "PUT", "PATCH"} and self.shed and not self.paged

    def setup(self) -> None:
        """Make the route known to the server."""
        self.server.routes.append(self)

    def stop(self) -> None:
        """Stop the server: it accepts nothing new, and answers what is under way."""
        self.server.finish()

    def check(self, request: HttpRequest, raw_arguments: dict[str, str], read_body: Callable[[], bytes]) -> None:
        """Check everything that the declaration demands; who asks comes before what is asked for."""
        if self.limited:  # probes ask for what is kept, from a network of our own: they are not counted
            self.limits.admit_address(request, self.limit, from_outside=not self.shed)
        try:
            request.authenticate(self.access, self.tokens.verified.verify)
        finally:  # who may not do this is counted as well
            self.limits.admit_user(request)
        request.check_accept(self.produces)
        request.read_arguments(raw_arguments)
        request.read_query(self.query)
        if self.idempotent:
            request.read_idempotency_key()
            request.instance = self.path.format(**request.arguments)
        if self.conditional and self.method != "GET":
            request.precondition = precondition(request.headers)
        if self.method not in {"GET", "DELETE"}:
            self._check_body(request, read_body)

    def _check_body(self, request: HttpRequest, read_body: Callable[[], bytes]) -> None:
        if request.has_body:
            request.check_body_type()
        body = read_body()
        if body or self.body is not None:
            request.read_body(self.body or NoFields, body)


def route(method: str, path: str, **declaration: Any) -> Callable[..., Any]:
    """Declare a method as the handler of a route: see Route. It gets the request, and the path's ids by their names."""

    def decorate(handler: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(handler)
        def run(self: Any, request: HttpRequest) -> Response | ServiceError:
            # A worker begins without a trace of its own.
            continue_trace(request.trace, self.name, request.remaining())
            try:
                result = handler(self, request, **request.arguments)
            except ServiceError as error:  # an answer as good as any other: nothing to log, nothing to alarm
                return error.with_traceback(None)  # and nothing to hold on to: its frames would hold it
            except INTERRUPTIONS as error:
                raise Interrupted(f"{handler.__name__} was ended by {type(error).__name__}: {error}") from error
            return result if isinstance(result, Response) else Response(result)

        register_entrypoint(run, Route(method, path, **declaration))
        return run

    return decorate
