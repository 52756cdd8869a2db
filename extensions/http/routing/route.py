"""The `@route` decorator: a Nameko entrypoint from the declaration of a route.

    @route("GET", "/orders/{order_id}", access=Access.USER, response=OrderView, errors=(OrderNotFound,))
    def get_order(self, request: HttpRequest, order_id: UUID) -> Json[OrderView]:
        return self.services.orders.get_order(order_id, actor=request.actor)

When the method runs, the caller is authenticated and authorised, and path, query and body are valid.
"""

import functools
from collections.abc import Callable
from typing import Any

from nameko.extensions import ENTRYPOINT_EXTENSIONS_ATTR, Entrypoint, register_entrypoint

from contracts.errors import ServiceError
from extensions.http.message.request import HttpRequest
from extensions.http.message.response import Response
from extensions.http.routing.declaration import RouteDeclaration
from extensions.http.routing.dispatcher import HttpServer
from extensions.observability.traces import continue_trace
from extensions.runtime.interruptions import INTERRUPTIONS, Interrupted


class Route(Entrypoint):
    """The entrypoint of one route."""

    server = HttpServer()

    def __init__(self, declaration: RouteDeclaration) -> None:
        super().__init__()
        self.declaration = declaration

    def setup(self) -> None:
        """Add the route to the server."""
        self.server.add(self.declaration, self)

    def stop(self) -> None:
        """Stop the server: it accepts no new connections and finishes the requests in flight."""
        self.server.finish()


def route(method: str, path: str, **declaration: Any) -> Callable[..., Any]:
    """Declare a method as the handler of a route; `declaration` are the fields of RouteDeclaration.

    The handler gets the HttpRequest, and the ids of the path as keyword arguments.
    """

    def decorate(handler: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(handler)
        def run(self: Any, request: HttpRequest) -> Response | ServiceError:
            # The worker runs in a separate greenlet, which does not inherit the trace.
            continue_trace(request.trace, self.name, request.remaining())
            try:
                result = handler(self, request, **request.arguments)
            except ServiceError as error:
                # An expected result, so nothing is logged. Remove the traceback: it would form a reference cycle.
                return error.with_traceback(None)
            except INTERRUPTIONS as error:
                raise Interrupted(f"{handler.__name__} was ended by {type(error).__name__}: {error}") from error
            return result if isinstance(result, Response) else Response(result)

        register_entrypoint(run, Route(RouteDeclaration(method=method, path=path, **declaration)))
        return run

    return decorate


def routes_of(service: type) -> dict[str, RouteDeclaration]:
    """Return the routes of a service class by the names of their handlers, in the order of its base classes."""
    found: dict[str, RouteDeclaration] = {}
    for base in service.__mro__:
        for name, member in vars(base).items():
            for extension in getattr(member, ENTRYPOINT_EXTENSIONS_ATTR, ()):
                if isinstance(extension, Route):
                    found.setdefault(name, extension.declaration)
    return found
