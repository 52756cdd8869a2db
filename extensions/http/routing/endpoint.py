"""One route at run time: runs its handler in a worker, within its bulkhead and circuit breaker."""

import logging
import time
from functools import partial
from typing import Any

from eventlet.event import Event as Signal
from nameko.exceptions import ContainerBeingKilled

from contracts.errors import InternalError, Overloaded, ServiceError, ServiceUnavailable, UpstreamTimeout
from extensions.http.limits.bulkhead import Bulkhead
from extensions.http.limits.circuit_breaker import CircuitBreaker
from extensions.http.limits.shared_response import SharedResponse
from extensions.http.message.request import HttpRequest
from extensions.http.message.response import Response
from extensions.http.routing.declaration import RouteDeclaration

log = logging.getLogger(__name__)


class Endpoint:
    """The handler of a route, and the state that bounds its load."""

    def __init__(self, declaration: RouteDeclaration, entrypoint: Any, bulkhead: Bulkhead) -> None:
        """`entrypoint` is the bound Nameko entrypoint of the handler."""
        self.declaration = declaration
        self._entrypoint, self._bulkhead = entrypoint, bulkhead
        self._circuit_breaker = CircuitBreaker()
        self._shared = SharedResponse(declaration.shared_for)

    def require_capacity(self, timeout: float) -> None:
        """Raise Overloaded where a response would take longer than `timeout` seconds."""
        if self.declaration.sheds_load:
            self._circuit_breaker.check()
            self._bulkhead.require_capacity(self._circuit_breaker.queue_timeout(timeout))

    def run(self, request: HttpRequest) -> Response | ServiceError:
        """Run the handler in a worker and return its result. Raises Overloaded, UpstreamTimeout, ServiceUnavailable."""
        signal = Signal()
        self._start(request, signal)
        return self._wait(request, signal)

    def run_shared(self, request: HttpRequest) -> Response | ServiceError:
        """Return a copy of the shared response; run the handler only where there is no fresh one."""
        response = self._wait(request, self._shared.get(partial(self._start, request)))
        if isinstance(response, ServiceError):
            return response
        return Response(response.body, status=response.status, headers=response.headers)

    def _start(self, request: HttpRequest, signal: Signal) -> None:
        """Start a worker, which will send a Response or a ServiceError to `signal`."""
        bulkhead = self._bulkhead
        bulkhead.acquire(self._circuit_breaker.queue_timeout(request.remaining()))
        try:
            self._circuit_breaker.check()  # it may have opened while this request waited for a worker
            on_result = partial(self._on_result, time.monotonic(), signal)
            self._entrypoint.container.spawn_worker(self._entrypoint, (request,), {}, handle_result=on_result)
        except Overloaded:
            bulkhead.release()
            raise
        except ContainerBeingKilled:
            bulkhead.release()
            raise ServiceUnavailable from None

    def _wait(self, request: HttpRequest, signal: Signal) -> Response | ServiceError:
        """Wait for the result of the handler.

        An error is returned, not raised: raising it would form a reference cycle of the error and its traceback.
        """
        result: Response | ServiceError | None = signal.wait(timeout=request.remaining())
        if result is None:
            raise UpstreamTimeout
        if isinstance(result, Overloaded) and self.declaration.sheds_load:
            self._circuit_breaker.open(result)
        return result

    def _on_result(
        self, started: float, signal: Signal, worker_ctx: Any, result: Any, exc_info: Any
    ) -> tuple[Any, Any]:
        """Handle the end of a worker, as Nameko's `handle_result`."""
        self._bulkhead.record_duration(time.monotonic() - started)
        self._bulkhead.release()
        if exc_info:
            log.error("%s failed", worker_ctx.entrypoint.method_name, exc_info=exc_info)
        signal.send(InternalError() if exc_info else result)
        return result, exc_info
