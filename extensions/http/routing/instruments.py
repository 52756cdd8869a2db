"""The metrics of the HTTP server; docs/metrics.md lists them."""

from functools import partial
from typing import Any

from contracts.errors import Overloaded, RateLimited, ServiceError, ServiceUnavailable
from extensions.http.message.errors import TooManyAtOnce
from extensions.http.server.listener import HttpListener
from extensions.observability.metrics import Metrics
from extensions.rpc.service_guard import ServiceBusy
from extensions.runtime.bulkhead import Bulkhead

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# The first match counts: TooManyAtOnce, Overloaded and ServiceBusy stand before the more general errors.
REFUSALS = (
    (TooManyAtOnce, "user_share"),
    (RateLimited, "rate_limit"),
    (Overloaded, "overload"),
    (ServiceBusy, "overload"),
    (ServiceUnavailable, "unavailable"),
)


class HttpInstruments:
    """Counts requests by the path template of their route, because the number of paths is unbounded."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._series: dict[tuple[str, str, int], tuple[Any, Any]] = {}
        text = "Requests refused with 429 or 503, by reason."
        self._refused = {
            kind: metrics.counter("http_requests_refused_total", text, reason=reason) for kind, reason in REFUSALS
        }

    def watch_bulkheads(self, **bulkheads: Bulkhead) -> None:
        """Export the requests in flight of each bulkhead; its keyword is the label `kind`."""
        for kind, bulkhead in bulkheads.items():
            text = "Requests that have a worker or wait for one."
            self._metrics.gauge("http_requests_in_flight", text, partial(getattr, bulkhead, "in_flight"), kind=kind)

    def watch_connections(self, listener: HttpListener) -> None:
        """Export the number of open connections."""
        self._metrics.gauge("http_connections", "Open connections.", lambda: listener.connections)

    def record_response(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a response; `route` is a path template, empty where no route matched."""
        key = (method if method in METHODS else "other", route or "none", status)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = self._open(*key)
        series[0].inc()
        series[1].observe(seconds)

    def _open(self, method: str, route: str, status: int) -> tuple[Any, Any]:
        metrics, text = self._metrics, "From the parsed head to the finished response, including the wait for the body."
        return (
            metrics.counter("http_requests_total", "Responses sent.", method=method, route=route, status=str(status)),
            metrics.histogram("http_request_seconds", text, method=method, route=route),
        )

    def record_refusal(self, error: ServiceError) -> None:
        """Count a refusal that is not the client's mistake: limits, overload, an unavailable service."""
        for kind, series in self._refused.items():
            if isinstance(error, kind):
                series.inc()
                return
