"""The HTTP server of a service: matches each request to a route, checks it, runs the handler, finishes the response."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import eventlet
from nameko import config
from nameko.extensions import DependencyProvider, Entrypoint, SharedExtension

from contracts.errors import InternalError, ServiceError
from extensions.http.limits.rate_limits import RequestLimits
from extensions.http.limits.user_quota import UserQuota
from extensions.http.message.conditional import NOT_MODIFIED, add_etag
from extensions.http.message.cors import Cors
from extensions.http.message.errors import MethodNotAllowed, PathNotFound, append_item, gateway_overloaded
from extensions.http.message.headers import cache_control, fixed_headers
from extensions.http.message.request import HttpRequest
from extensions.http.message.response import Response
from extensions.http.message.static_files import METHODS, StaticFile
from extensions.http.routing import checks
from extensions.http.routing.authentication import AccessTokens
from extensions.http.routing.declaration import RouteDeclaration
from extensions.http.routing.endpoint import Endpoint
from extensions.http.routing.instruments import HttpInstruments
from extensions.http.routing.route_table import RouteTable
from extensions.http.routing.streams import Streams
from extensions.http.server.listener import MAX_BUFFERED_BYTES, HttpListener
from extensions.messaging.listener import Listener
from extensions.observability.metrics import Metrics
from extensions.rpc.service_guard import ServiceGuards
from extensions.runtime.bulkhead import Bulkhead
from extensions.runtime.parsed_settings import by_environment, is_production, listed
from extensions.runtime.progress import loops_of

log = logging.getLogger(__name__)

STOP_GRACE_SECONDS = 3.0
START_SECONDS = 5.0
# Requests do not use the spare workers: they are reserved for event handlers and timers.
SPARE_WORKERS = 4
SHARED_RESPONSE_WORKERS = 2
# Requests that wait for a password hash hold few workers, so that the users service stays available for others.
COMPUTE_HEAVY_WORKERS = 4
MAX_REQUESTS = 400
FILE_ROUTE = "/{file}"
"""The route of all static files in metrics."""


class HttpServer(SharedExtension):
    """Serves the routes of one service."""

    limits = RequestLimits()
    guards = ServiceGuards()
    metrics = Metrics()
    tokens = AccessTokens()
    streams = Streams()

    def __init__(self) -> None:
        super().__init__()
        self._entrypoints: dict[RouteDeclaration, Entrypoint] = {}
        self._endpoints: dict[RouteDeclaration, Endpoint] = {}
        self._table = RouteTable(())
        self._files: Mapping[str, StaticFile] = {}
        self._listener: HttpListener | None = None
        self._instruments: Any = None
        self._budget = 0.0
        self._quota = UserQuota(0)
        self._fixed_headers: dict[str, str] = {}
        self._cors = Cors(())
        self.is_draining = False
        """True from the beginning of the stop: this process accepts no new connections."""

    @property
    def port(self) -> int:
        """The port of the listening socket, 0 before the start."""
        return self._listener.port if self._listener else 0

    def add(self, declaration: RouteDeclaration, entrypoint: Entrypoint) -> None:
        """Add a route, whose handler runs by `entrypoint`. To be called before the start."""
        self._entrypoints[declaration] = entrypoint

    def serve_files(self, files: Mapping[str, StaticFile]) -> None:
        """Serve these files at their paths, before any route. To be called before the start."""
        self._files = files

    def start(self) -> None:
        """Read the settings, and listen when access tokens can be verified. Until then other gateways serve clients.

        After START_SECONDS it listens anyway (no broker, no users service), and /health/ready names what is missing.
        """
        if Listener in self.container.shared_extensions:
            self._await_readiness(time.monotonic() + START_SECONDS)
        self._table = RouteTable(self._entrypoints)
        self._budget = float(config.get("HTTP_DEADLINE_SECONDS", 5))
        max_per_user = by_environment("HTTP_MAX_REQUESTS_PER_USER")
        self._quota = UserQuota(0 if max_per_user in {None, False, "off"} else int(max_per_user))
        self._fixed_headers = fixed_headers(production=is_production(config))
        origins = listed(by_environment("CORS_ORIGINS", "any"))
        self._cors = Cors(origins, listed(config.get("CORS_REQUEST_HEADERS")))
        self._instruments = HttpInstruments(self.metrics)
        self._make_endpoints()
        self._listen()

    def _await_readiness(self, deadline: float) -> None:
        while not self.tokens.verified.caught_up and time.monotonic() < deadline:
            eventlet.sleep(0.02)

    def _make_endpoints(self) -> None:
        """Make the bulkheads: every admitted request gets a worker at once, and waits in it for the service it calls.

        The guard of that service bounds how many wait. So workers never run short because of one service.
        """
        workers = int(config.get("HTTP_MAX_REQUESTS", MAX_REQUESTS))
        usual = Bulkhead(workers, workers, gateway_overloaded)
        compute_heavy = Bulkhead(COMPUTE_HEAVY_WORKERS, workers, gateway_overloaded)
        shared = Bulkhead(SHARED_RESPONSE_WORKERS, SHARED_RESPONSE_WORKERS, gateway_overloaded)
        others = COMPUTE_HEAVY_WORKERS + SHARED_RESPONSE_WORKERS + SPARE_WORKERS
        others += sum(declaration.max_concurrent for declaration in self._entrypoints)
        self.container._worker_pool.resize(workers + others)  # noqa: SLF001
        for declaration, entrypoint in self._entrypoints.items():
            bulkhead = compute_heavy if declaration.compute_heavy else usual
            if declaration.shared_for:
                bulkhead = shared
            if declaration.max_concurrent:
                bulkhead = Bulkhead(declaration.max_concurrent, declaration.max_concurrent, gateway_overloaded)
            guard = self.guards.of(declaration.service) if declaration.service else None
            self._endpoints[declaration] = Endpoint(declaration, entrypoint, bulkhead, guard)
        self._instruments.watch_bulkheads(usual=usual, costly=compute_heavy, probe=shared)

    def _listen(self) -> None:
        address = config.get("WEB_SERVER_ADDRESS", "0.0.0.0:8000")
        max_body = int(config.get("HTTP_MAX_BODY_BYTES", 64 * 1024))
        max_buffered = int(config.get("HTTP_MAX_BUFFERED_BYTES", MAX_BUFFERED_BYTES))
        spawn = self.container.spawn_managed_thread
        loops = loops_of(self.container)
        self._listener = HttpListener(address, max_body, spawn, self.respond, max_buffered, loops)
        self._instruments.watch_connections(self._listener)
        log.info("listening on %s with %d routes", address, len(self._endpoints))

    def finish(self) -> None:
        """Stop listening, and wait for the requests in flight."""
        self.is_draining = True
        self.streams.close()
        for endpoint in self._endpoints.values():
            endpoint.forget_shared()
        if self._listener is not None:
            self._listener.stop(self._budget + STOP_GRACE_SECONDS)

    def kill(self) -> None:
        """Stop listening at once."""
        if self._listener is not None:
            self._listener.kill()

    def respond(self, request: HttpRequest, read_body: Callable[[], bytes], error: ServiceError | None) -> Response:
        """Return the response to one request. `error` is set where the request could not be parsed.

        Raises OSError where the client disconnects while its body is read, and nothing else.
        """
        started = time.monotonic()
        response = self._respond(request, read_body, error)
        self._instruments.record_response(request.method, request.route, response.status, time.monotonic() - started)
        return response

    def _respond(self, request: HttpRequest, read_body: Callable[[], bytes], error: ServiceError | None) -> Response:
        if error is not None:
            return self._refuse(error, request)
        try:
            result = self._dispatch(request, read_body)
            return self._refuse(result, request) if isinstance(result, ServiceError) else self._finish(result, request)
        except ServiceError as failure:
            return self._refuse(failure, request)
        except OSError:  # the client disconnected
            raise
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            return self._finish(Response.of_problem(InternalError(), request), request)

    def _refuse(self, error: ServiceError, request: HttpRequest) -> Response:
        self._instruments.record_refusal(error)
        return self._finish(Response.of_problem(error, request), request)

    def _finish(self, response: Response, request: HttpRequest) -> Response:
        for name, value in self._fixed_headers.items():
            response.headers.setdefault(name, value)
        response.headers.setdefault("Cache-Control", cache_control(request.method, request.headers, response.status))
        vary = response.headers.get("Vary")
        response.headers |= self._cors.headers(request.headers)
        if vary is not None and response.headers["Vary"] != vary:
            append_item(response.headers, "Vary", vary)
        return response.finalize(request)

    def _dispatch(self, request: HttpRequest, read_body: Callable[[], bytes]) -> Response | ServiceError:
        file = self._files.get(request.path)
        if file is not None:
            return self._send_file(file, request)
        if request.method == "OPTIONS":
            return self._options(request)
        declaration, raw_arguments = self._match(request)
        request.route = declaration.path
        endpoint = self._endpoints[declaration]
        # First of all: under overload a refusal must be cheap, or it takes the time of the requests that are served.
        endpoint.require_capacity(self._budget)
        checks.admit(declaration, request, self.limits, self.tokens.verified)
        checks.validate(declaration, request, raw_arguments, read_body)
        # The deadline starts after the body was read, so a slow client does not use up the time of the services.
        request.deadline = time.monotonic() + (declaration.seconds or self._budget)
        result = self._run(endpoint, request)
        return result if isinstance(result, ServiceError) else _complete(result, declaration, request)

    def _run(self, endpoint: Endpoint, request: HttpRequest) -> Response | ServiceError:
        if endpoint.declaration.shared_for:
            return endpoint.run_shared(request)
        with self._quota.hold(request.token and request.token.user_id):
            return endpoint.run(request)

    def _send_file(self, file: StaticFile, request: HttpRequest) -> Response:
        """Respond without a worker: the file is in memory. Counted against the rate limits like any other request."""
        request.route = FILE_ROUTE
        self.limits.admit_address(request)
        if request.method == "OPTIONS":
            return self._preflight(request, METHODS)
        if request.method not in METHODS:
            raise MethodNotAllowed(METHODS)
        return file.response(request)

    def _options(self, request: HttpRequest) -> Response:
        self.limits.admit_address(request)
        return self._preflight(request, self._table.allowed(request.path))

    def _preflight(self, request: HttpRequest, allowed: Iterable[str]) -> Response:
        allow = ", ".join(allowed)
        return Response(status=204, headers=self._cors.preflight(request.headers, allow))

    def _match(self, request: HttpRequest) -> tuple[RouteDeclaration, dict[str, str]]:
        try:
            return self._table.match(request.method, request.path)
        except (PathNotFound, MethodNotAllowed):  # counted against the rate limits like any other request
            self.limits.admit_address(request)
            raise


class HttpServerProvider(DependencyProvider):
    """Gives a service its HTTP server: `http = HttpServerProvider()`."""

    shared = HttpServer()

    def get_dependency(self, _worker_ctx: Any) -> HttpServer:
        """Return the shared HttpServer."""
        return self.shared


def _complete(response: Response, declaration: RouteDeclaration, request: HttpRequest) -> Response:
    """Add to a success what its declaration promises: status, media type, Location, ETag or 304, Link."""
    response.status = response.status or declaration.status
    if isinstance(response.body, bytes):
        response.headers["Content-Type"] = declaration.produces
    if declaration.location:
        response.headers["Location"] = declaration.location.format(**response.body)
    if declaration.sends_etag:
        body, is_shared = response.etag_source(), response.is_shared
        if add_etag(response.headers, body, request, is_shared=is_shared):
            response.status = NOT_MODIFIED
    if declaration.paged and response.body["next_cursor"]:
        response.headers["Link"] = f'<{request.next_page(response.body["next_cursor"])}>; rel="next"'
    return response
