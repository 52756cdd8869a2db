"""What answers an HTTP request: finds its route, lets it in or refuses it, has a worker run the method, and waits."""

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import eventlet
from eventlet.event import Event as Signal
from nameko import config
from nameko.exceptions import ContainerBeingKilled
from nameko.extensions import SharedExtension

from contracts.errors import InternalError, Overloaded, ServiceError, ServiceUnavailable, UpstreamTimeout
from extensions.http.limits.overload import Bulkhead, SharedResponse, UserQuota
from extensions.http.limits.rate_limits import RequestLimits
from extensions.http.message.conditional import NOT_MODIFIED, tag
from extensions.http.message.cors import Cors
from extensions.http.message.errors import MethodNotAllowed, PathNotFound
from extensions.http.message.headers import cache_control, fixed_headers
from extensions.http.message.request import HttpRequest
from extensions.http.message.response import Response
from extensions.http.routing.instruments import HttpInstruments
from extensions.http.routing.table import RouteTable
from extensions.http.server.listener import HttpListener
from extensions.messaging.listener import Listener
from extensions.observability.metrics import Metrics
from extensions.runtime.settings import by_environment, is_production, listed

if TYPE_CHECKING:
    from extensions.http.routing.route import Route

log = logging.getLogger(__name__)

STOP_GRACE_SECONDS = 3.0
START_SECONDS = 5.0
# Workers that requests do not get: some for what is kept, which must not wait behind them, some for events and timers.
SPARE_WORKERS, KEEPING_WORKERS = 4, 2
# What waits for costly computation elsewhere holds few workers: the others are for those who do not.
COSTLY_WORKERS = 4


class HttpServer(SharedExtension):
    """Answers HTTP requests with the routes of its service."""

    limits = RequestLimits()
    metrics = Metrics()

    def __init__(self) -> None:
        super().__init__()
        self.routes: list[Route] = []
        self._table = RouteTable(())
        self._listening: HttpListener | None = None
        self._instruments: Any = None
        self._budget = 0.0
        self._slots = self._keeping_slots = self._costly_slots = Bulkhead(0, 0)
        self._shares = UserQuota(0)
        self._fixed_headers: dict[str, str] = {}
        self._cors = Cors(())

    @property
    def port(self) -> int:
        """The port it listens on, 0 before it does."""
        return self._listening.port if self._listening else 0

    def start(self) -> None:
        """Listen, when there is something to say: until then other gateways answer.

        Where that takes too long (no broker, no users service) it listens all the same, and says what is missing.
        """
        if Listener in self.container.shared_extensions:
            self._await_readiness(time.monotonic() + START_SECONDS)
        self._table = RouteTable(self.routes)
        self._budget = float(config.get("HTTP_DEADLINE_SECONDS", 5))
        workers = max(1, self.container.max_workers - SPARE_WORKERS)
        max_requests = int(config.get("HTTP_MAX_REQUESTS", 400))
        self._slots = Bulkhead(workers, max_requests)
        self._costly_slots = Bulkhead(min(COSTLY_WORKERS, workers), max_requests)
        self._keeping_slots = Bulkhead(KEEPING_WORKERS, KEEPING_WORKERS)
        most = by_environment("HTTP_MAX_REQUESTS_PER_USER")
        self._shares = UserQuota(0 if most in {None, False, "off"} else int(most))
        self._fixed_headers = fixed_headers(production=is_production(config))
        self._cors = Cors(listed(by_environment("CORS_ORIGINS", "any")))
        address = config.get("WEB_SERVER_ADDRESS", "0.0.0.0:8000")
        max_body = int(config.get("HTTP_MAX_BODY_BYTES", 64 * 1024))
        self._instruments = HttpInstruments(self.metrics)
        self._instruments.in_flight(usual=self._slots, costly=self._costly_slots, probe=self._keeping_slots)
        self._listening = HttpListener(address, max_body, self.container.spawn_managed_thread, self.respond)
        self._instruments.connections(self._listening)
        log.info("listening on %s with %d routes", address, len(self.routes))

    def _await_readiness(self, deadline: float) -> None:
        while not all(route.tokens.verified.caught_up for route in self.routes) and time.monotonic() < deadline:
            eventlet.sleep(0.02)

    def finish(self) -> None:
        """Stop listening and wait until what is under way is answered."""
        if self._listening is not None:
            self._listening.stop(self._budget + STOP_GRACE_SECONDS)

    def kill(self) -> None:
        """Stop listening at once."""
        if self._listening is not None:
            self._listening.kill()

    def respond(self, request: HttpRequest, read_body: Callable[[], bytes], error: ServiceError | None) -> Response:
        """Answer one request, whatever happens. `error` is what made it unreadable."""
        began = time.monotonic()
        answer = self._answer(request, read_body, error)
        self._instruments.answered(request.method, request.route, answer.status, time.monotonic() - began)
        return answer

    def _answer(self, request: HttpRequest, read_body: Callable[[], bytes], error: ServiceError | None) -> Response:
        if error is not None:
            return self._refuse(error, request)
        try:
            answer = self._dispatch(request, read_body)
            return self._refuse(answer, request) if isinstance(answer, ServiceError) else self._finish(answer, request)
        except ServiceError as failure:
            return self._refuse(failure, request)
        except OSError:  # the client is gone
            raise
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            return self._finish(Response.of_problem(InternalError(), request), request)

    def _refuse(self, failure: ServiceError, request: HttpRequest) -> Response:
        self._instruments.refused(failure)
        return self._finish(Response.of_problem(failure, request), request)

    def _finish(self, answer: Response, request: HttpRequest) -> Response:
        for name, value in self._fixed_headers.items():
            answer.headers.setdefault(name, value)
        answer.headers.setdefault("Cache-Control", cache_control(request.method, request.headers, answer.status))
        answer.headers |= self._cors.headers(request.headers)
        return answer.finished(request)

    def _dispatch(self, request: HttpRequest, read_body: Callable[[], bytes]) -> Response | ServiceError:
        if request.method == "OPTIONS":
            return self._say_what_is_allowed(request)
        route, raw_arguments = self._match(request)
        request.route = route.path
        slots = self._costly_slots if route.costly else self._slots
        if route.shed:
            # Before anything else is done: a refusal has to be cheap, or it takes the time of those who are let in.
            route.rest.check()
            slots.require_room(route.rest.patience(self._budget))
        route.check(request, raw_arguments, read_body)
        # A slow sender is not the services' fault: their time begins here.
        request.deadline = time.monotonic() + self._budget
        if route.kept:
            answer = self._keep(route, route.kept, request)
        else:
            with self._shares.one_of(request.token and request.token.user_id):
                answer = self._run(route, request, slots)
        if isinstance(answer, ServiceError):
            return answer
        answer.status = answer.status or route.status
        if isinstance(answer.body, bytes):
            answer.headers["Content-Type"] = route.produces
        if route.location:
            answer.headers["Location"] = route.location.format(**answer.body)
        if route.conditional and tag(answer.headers, answer.tagged(), request):
            answer.status = NOT_MODIFIED
        if route.paged and answer.body["next_cursor"]:
            answer.headers["Link"] = f'<{request.next_page(answer.body["next_cursor"])}>; rel="next"'
        return answer

    def _say_what_is_allowed(self, request: HttpRequest) -> Response:
        self.limits.admit_address(request)
        allow = ", ".join(self._table.allowed(request.path))
        return Response(status=204, headers=self._cors.preflight(request.headers, allow))

    def _match(self, request: HttpRequest) -> tuple["Route", dict[str, str]]:
        try:
            return self._table.match(request.method, request.path)
        except (PathNotFound, MethodNotAllowed):  # counted like everything else that is asked
            self.limits.admit_address(request)
            raise

    def _keep(self, route: "Route", kept: SharedResponse, request: HttpRequest) -> Response | ServiceError:
        """Answer with what another has been told already, or wait with all who ask now."""
        begin = partial(self._begin, route, request, self._keeping_slots)
        answer = self._outcome(route, request, kept.outcome(begin))
        if isinstance(answer, ServiceError):
            return answer
        return Response(answer.body, status=answer.status, headers=answer.headers)

    def _run(self, route: "Route", request: HttpRequest, slots: Bulkhead) -> Response | ServiceError:
        """Run the route's method in a worker, if there is room."""
        outcome = Signal()
        self._begin(route, request, slots, outcome)
        return self._outcome(route, request, outcome)

    def _begin(self, route: "Route", request: HttpRequest, slots: Bulkhead, outcome: Signal) -> None:
        slots.take(route.rest.patience(request.remaining()))
        self._start_worker(route, request, slots, outcome)

    def _outcome(self, route: "Route", request: HttpRequest, outcome: Signal) -> Response | ServiceError:
        """Wait for what the method returned. An error too: raised, it would hold on to the frames that hold it."""
        answer: Response | ServiceError | None = outcome.wait(timeout=request.remaining())
        if answer is None:
            raise UpstreamTimeout
        if isinstance(answer, Overloaded) and route.shed:
            route.rest.begin(answer)
        return answer

    def _start_worker(self, route: "Route", request: HttpRequest, slots: Bulkhead, outcome: Signal) -> None:
        try:
            route.rest.check()  # its service may have become overloaded while this one waited
            handle_result = partial(self._take_result, slots, time.monotonic(), outcome)
            self.container.spawn_worker(route, (request,), {}, handle_result=handle_result)
        except Overloaded:
            slots.give_back()
            raise
        except ContainerBeingKilled:
            slots.give_back()
            raise ServiceUnavailable from None

    def _take_result(
        self, slots: Bulkhead, began: float, outcome: Signal, worker_ctx: Any, result: Any, exc_info: Any
    ) -> tuple[Any, Any]:
        slots.note(time.monotonic() - began)
        slots.give_back()
        if exc_info:
            log.error("%s failed", worker_ctx.entrypoint.method_name, exc_info=exc_info)
        outcome.send(InternalError() if exc_info else result)
        return result, exc_info
