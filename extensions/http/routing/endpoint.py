"""One route at run time: runs its handler in a worker, within the limits of the server and of the called service."""

import logging
import time
from functools import partial
from typing import Any

from eventlet.event import Event as Signal
from nameko.exceptions import ContainerBeingKilled

from contracts.errors import InternalError, Overloaded, ServiceError, ServiceUnavailable, UpstreamTimeout
from extensions.http.limits.overload_pause import OverloadPause
from extensions.http.limits.shared_response import SharedResponse
from extensions.http.message.errors import gateway_overloaded
from extensions.http.message.request import HttpRequest
from extensions.http.message.response import Response
from extensions.http.routing.declaration import RouteDeclaration
from extensions.rpc.service_guard import ServiceGuard
from extensions.runtime.bulkhead import Bulkhead

log = logging.getLogger(__name__)

# Compute-heavy requests may wait for a worker for this share of their time. The rest is left to the computation, which
# takes much longer on a machine that became busy than it took before.
COMPUTE_HEAVY_WAITING_SHARE = 0.5


class Endpoint:
    """The handler of a route, and the state that bounds its load."""

    def __init__(
        self, declaration: RouteDeclaration, entrypoint: Any, bulkhead: Bulkhead, guard: ServiceGuard | None = None
    ) -> None:
        """`entrypoint` is the bound Nameko entrypoint of the handler, `guard` that of the declared service."""
        self.declaration = declaration
        self._entrypoint, self._bulkhead, self._guard = entrypoint, bulkhead, guard
        self._overload = OverloadPause()
        self._shared = SharedResponse(declaration.shared_for)

    def require_capacity(self, timeout: float) -> None:
        """Raise ServiceUnavailable where a response would take longer than `timeout` seconds.

        The declared service is asked here, too: to find out in the handler would cost ten times as much, and clients
        that repeat a refused request at once would slow down all others.
        """
        if self.declaration.sheds_load:
            self._overload.check()
            queue_timeout = self._overload.queue_timeout(timeout)
            self._bulkhead.require_capacity(queue_timeout)
            if self._guard is not None:
                self._guard.require_capacity(queue_timeout)

    def forget_shared(self) -> None:
        """Run the handler for the next request of a shared response."""
        self._shared = SharedResponse(self.declaration.shared_for)

    def run(self, request: HttpRequest) -> Response | ServiceError:
        """Run the handler in a worker and return its result. Raises ServiceUnavailable, UpstreamTimeout."""
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
        bulkhead, share = self._bulkhead, COMPUTE_HEAVY_WAITING_SHARE if self.declaration.compute_heavy else 1.0
        bulkhead.acquire(share * self._overload.queue_timeout(request.remaining()))
        try:
            self._require_turn(request)
            on_result = partial(self._on_result, time.monotonic(), signal)
            self._entrypoint.container.spawn_worker(self._entrypoint, (request,), {}, handle_result=on_result)
        except ServiceUnavailable:
            bulkhead.release()
            raise
        except ContainerBeingKilled:
            bulkhead.release()
            raise ServiceUnavailable from None

    def _require_turn(self, request: HttpRequest) -> None:
        """Raise ServiceUnavailable where the load has changed while the request arrived or waited."""
        self._overload.check()
        if self._guard is not None:
            self._guard.require_capacity(self._overload.queue_timeout(request.remaining()))
        # spawn_worker waits for a free worker longer than a request. The bulkheads leave more workers free than other
        # entrypoints use; if that is ever wrong, this request is refused and its connection stays responsive.
        if self._entrypoint.container._worker_pool.free() <= 0:  # noqa: SLF001
            raise gateway_overloaded()

    def _wait(self, request: HttpRequest, signal: Signal) -> Response | ServiceError:
        """Wait for the result of the handler.

        An error is returned, not raised: raising it would form a reference cycle of the error and its traceback.
        """
        result: Response | ServiceError | None = signal.wait(timeout=request.remaining())
        if result is None:
            raise UpstreamTimeout
        if isinstance(result, Overloaded) and self.declaration.sheds_load:
            self._overload.begin(result)
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
