"""What the HTTP server measures; docs/metrics.md lists it."""

from functools import partial
from typing import Any

from contracts.errors import Overloaded, RateLimited, ServiceError, ServiceUnavailable
from extensions.http.limits.overload import Bulkhead
from extensions.http.message.errors import TooManyAtOnce
from extensions.http.server.listener import HttpListener
from extensions.observability.metrics import Metrics

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# The first that fits.
REFUSALS = (
    (TooManyAtOnce, "user_share"),
    (RateLimited, "rate_limit"),
    (Overloaded, "overload"),
    (ServiceUnavailable, "unavailable"),
)


class HttpInstruments:
    """Requests, by the template of their route: of paths there is any number."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._series: dict[tuple[str, str, int], tuple[Any, Any]] = {}
        text = "Requests answered 429 or 503, by what stood in their way."
        self._refused = {
            kind: metrics.counter("http_requests_refused_total", text, reason=reason) for kind, reason in REFUSALS
        }

    def in_flight(self, **slots: Bulkhead) -> None:
        """Have the requests under way read where they are known."""
        for kind, some in slots.items():
            text = "Requests that have or await a worker."
            self._metrics.gauge("http_requests_in_flight", text, partial(getattr, some, "in_flight"), kind=kind)

    def connections(self, listening: HttpListener) -> None:
        """Have the open connections read where they are known."""
        self._metrics.gauge("http_connections", "Open connections.", lambda: listening.connections)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Note an answer; `route` is empty where the request found none."""
        key = (method if method in METHODS else "other", route or "none", status)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = self._open(*key)
        series[0].inc()
        series[1].observe(seconds)

    def _open(self, method: str, route: str, status: int) -> tuple[Any, Any]:
        made, text = self._metrics, "From the whole head to the finished answer, its body read in between."
        return (
            made.counter("http_requests_total", "Requests answered.", method=method, route=route, status=str(status)),
            made.histogram("http_request_seconds", text, method=method, route=route),
        )

    def refused(self, error: ServiceError) -> None:
        """Note why a request is not served, where that is no fault of its own."""
        for kind, series in self._refused.items():
            if isinstance(error, kind):
                series.inc()
                return
