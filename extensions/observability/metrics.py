"""The metrics of a process, served in the Prometheus text format at `GET /metrics` on a separate port.

The same port serves `GET /health/live`, by which a supervisor finds out about this very process: 503 names the loops
that are stuck.

    metrics = Metrics()
    ...
    self._handled = self.metrics.counter("events_handled_total", "Events handled.", handler=self.method_name)

A series is looked up once, in the setup of an extension, so that a message or a request costs one addition. The metrics
of the extensions are in instruments.py; docs/metrics.md describes all. A label has few values: never an id or a path.
"""

import json
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from typing import Any

import eventlet
from eventlet import wsgi
from nameko import config
from nameko.exceptions import ConfigurationError
from nameko.extensions import SharedExtension
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    make_wsgi_app,
)
from prometheus_client.metrics import MetricWrapperBase

from extensions.runtime.addresses import metrics_address
from extensions.runtime.progress import Loops, loops_of

disable_created_metrics()  # saves one unused series for each counter and histogram

log = logging.getLogger(__name__)
server_log = logging.getLogger("extensions.observability.metrics.server")
server_log.setLevel(logging.WARNING)  # it would log every start, stop and connection

PREFIX = "suite"
PATHS = frozenset({"/metrics", "/metrics/"})
LIVENESS_PATH = "/health/live"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
MAX_SCRAPES = 4
SOCKET_SECONDS = 5.0
RETRY_SECONDS = 5.0
_ADDRESS = re.compile(r"([^:\s]+):(\d{1,5})(?:-(\d{1,5}))?")


class Metrics(SharedExtension):
    """The registry of one service in one process. It is served if the service has an address for it."""

    def __init__(self) -> None:
        super().__init__()
        self.registry = CollectorRegistry()
        self.port = 0
        """The port that it listens on, 0 while it does not listen."""
        self._families: dict[str, Any] = {}
        self._addresses: list[tuple[str, int]] = []
        self._server: Any = None

    @property
    def is_served(self) -> bool:
        """Tell whether the metrics are served. If not, skip measurements that cost more than an addition."""
        return bool(self._addresses)

    def setup(self) -> None:
        """Read the address, so that a wrong one stops the service at its start; register the metrics of the process."""
        service = self.container.service_name
        self._addresses = addresses(metrics_address(config, service))
        ProcessCollector(registry=self.registry)
        self.gauge("service_info", "Which service this process runs.", lambda: 1, service=service)
        pool = self.container._worker_pool  # noqa: SLF001
        self.gauge("workers_busy", "Workers that run a method now.", pool.running)
        self.gauge("workers_limit", "Workers that may run at once.", lambda: pool.size)
        loops_of(self.container).on_new_name = self._watch_loop

    def start(self) -> None:
        """Start to listen, if there is an address."""
        if self.is_served:
            self._server = self.container.spawn_managed_thread(self._serve, identifier="metrics")

    def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.kill()

    kill = stop

    def counter(self, name: str, text: str, **labels: str) -> Counter:
        """Return the series `suite_<name>` with these labels, to be incremented; `name` ends in `_total`."""
        return self._series(Counter, name, text, labels)

    def histogram(self, name: str, text: str, buckets: Sequence[float] = SECONDS, **labels: str) -> Histogram:
        """Return the series `suite_<name>` with these labels, to observe values with."""
        return self._series(Histogram, name, text, labels, buckets=buckets)

    def gauge(self, name: str, text: str, read: Callable[[], float], **labels: str) -> None:
        """Register `suite_<name>` with these labels; each scrape calls `read`, which must not block."""
        self._series(Gauge, name, text, labels).set_function(read)

    def values(self, name: str) -> list[tuple[dict[str, str], float]]:
        """Return the labels and the present value of each series of the gauge or counter `suite_<name>`."""
        family = self._families.get(name)
        if family is None:
            return []
        return [(sample.labels, sample.value) for metric in family.collect() for sample in metric.samples]

    def _series(
        self, kind: type[MetricWrapperBase], name: str, text: str, labels: dict[str, str], **options: Any
    ) -> Any:
        family = self._families.get(name)
        if family is None:
            family = kind(name, text, tuple(labels), namespace=PREFIX, registry=self.registry, **options)
            self._families[name] = family
        return family.labels(**labels) if labels else family

    def _watch_loop(self, name: str) -> None:
        loops = loops_of(self.container)
        self.gauge(
            "loop_stuck",
            "1 while the loop is stuck: no progress for its bound.",
            lambda: loops.is_stuck(name),
            loop=name,
        )
        text = "Seconds since the loop reported progress; 0 while it waits for work without a time limit."
        self.gauge("loop_progress_age_seconds", text, lambda: loops.age(name), loop=name)

    # Serving

    def _serve(self) -> None:
        """Serve scrapes until the service stops. No failure here may end the service."""
        app = only_metrics(make_wsgi_app(self.registry, disable_compression=True))
        app = with_liveness(app, self.container.service_name, loops_of(self.container))
        while True:
            try:
                with closing(_listen(self._addresses)) as sock:
                    self.port = sock.getsockname()[1]
                    log.info("metrics at http://%s:%d/metrics", *sock.getsockname())
                    wsgi.server(
                        sock,
                        app,
                        log=server_log,
                        log_output=False,
                        debug=False,
                        keepalive=False,
                        max_size=MAX_SCRAPES,
                        socket_timeout=SOCKET_SECONDS,
                    )
            except Exception as error:  # noqa: BLE001  (no free port, no file descriptors, or a bug)
                log.warning("metrics are not served (%s); next try in %.0f s", error, RETRY_SECONDS)
            self.port = 0
            eventlet.sleep(RETRY_SECONDS)


def addresses(setting: str | None) -> list[tuple[str, int]]:
    """Return the addresses of a setting `host:port` or `host:first-last`, in the order to try them; [] for no setting.

    Each process takes the first free port of a range, so that several processes of a service can run on one machine.
    Raises ConfigurationError.
    """
    if not setting:
        return []
    match = _ADDRESS.fullmatch(str(setting))
    first, last = (int(match[2]), int(match[3] or match[2])) if match else (1, 0)
    if match is None or not 0 <= first <= last < 65_536:
        message = f"<SERVICE>_METRICS_ADDRESS: {setting!r} is neither host:port nor host:first-last"
        raise ConfigurationError(message)
    return [(match[1], port) for port in range(first, last + 1)]


def _listen(wanted: Sequence[tuple[str, int]]) -> Any:
    """Return a socket that listens on the first free address. Raises OSError if there is none."""
    problem = OSError("no address")
    for address in wanted:
        try:
            # reuse_port is eventlet's default: a scrape would then reach a random process.
            return eventlet.listen(address, reuse_port=False)
        except OSError as error:
            problem = error
    raise problem


def with_liveness(app: Callable[..., Iterable[bytes]], service: str, loops: Loops) -> Callable[..., Iterable[bytes]]:
    """Return `app`, which also responds at LIVENESS_PATH: 503 until it has started, and while a loop is stuck."""

    def with_health(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"].rstrip("/") != LIVENESS_PATH:
            return app(environ, start_response)
        stuck = loops.stuck()
        status = "failing" if stuck else "ok" if loops.has_started else "starting"
        http_status = "200 OK" if status == "ok" else "503 Service Unavailable"
        start_response(http_status, [("Content-Type", "application/json")])
        ages = {name: round(age, 1) for name, age in stuck.items()}
        report = {"service": service, "status": status, "stuck": ages}
        return [json.dumps(report).encode()]

    return with_health


def only_metrics(app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """Return `app`, which responds at any path, restricted to PATHS; other paths are 404."""

    def at_its_path(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] in PATHS:
            return app(environ, start_response)
        start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"Metrics are at /metrics.\n"]

    return at_its_path
