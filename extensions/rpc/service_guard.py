"""Service guards: a bulkhead and a circuit breaker for each service that this process calls.

A service that is slow or frozen delays only the calls to it. At most `RPC_MAX_WAITING_PER_SERVICE` workers wait for its
replies. After many calls without a reply, further calls are refused at once, except for a probe now and then
(docs/architecture/decisions/0017-one-slow-service-delays-only-its-own-requests.md).
"""

import logging
import math
import time
from types import TracebackType

from nameko import config
from nameko.extensions import SharedExtension

from contracts.call_permissions import CALLS
from contracts.errors import Overloaded, ServiceError, ServiceUnavailable, UpstreamTimeout
from extensions.observability.instruments import GuardInstruments
from extensions.observability.metrics import Metrics
from extensions.observability.traces import current_trace
from extensions.runtime.bulkhead import Bulkhead
from extensions.runtime.circuit_breaker import CircuitBreaker, CircuitOpen, State

log = logging.getLogger(__name__)

# Workers of a process that do not call services: event handlers, timers and health checks.
SPARE_WORKERS = 4
MAX_WAITING = 300
MAX_WORKERS = 400
# Workers that are kept for each service: others that are slow at the same time do not get them.
RESERVED = 10
# A call without a reply counts as failed only if it has waited at least this long, because a caller may set a deadline
# that is shorter than the service usually needs.
TELLING_SECONDS = 1.0
# These calls may wait long in the service, so each has a guard of its own. The other calls of the service do not wait
# behind them.
WAITING_CALLS = frozenset({"orders.create_order"})
# These calls need much of the service's processor. A process makes one of each at a time, and the others wait for it:
# many of them at once would delay all other calls of the service.
COSTLY_CALLS = frozenset({"orders.check_consistency", "orders.export_orders", "payments.export_payments"})
MAX_WAITING_COSTLY = 20
# A health check always passes. If it gets a reply, the next call is the probe.
HEALTH = "health"


class NoReply(UpstreamTimeout):
    """The call was sent, and no reply came in time. It is not raised if the service itself replies UpstreamTimeout."""


class ServiceBusy(ServiceUnavailable):
    """The highest permitted number of calls to the service run or wait already. The call was not sent."""


class ServiceSilent(ServiceUnavailable):
    """The circuit is open: the service has lately not replied to many calls. The call was not sent."""


class Workers:
    """The workers of a process that call services. The last ones are kept for services for which few of them wait."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._bulkheads: list[Bulkhead] = []

    def share(self, bulkhead: Bulkhead) -> None:
        """Let the calls of one more bulkhead occupy workers."""
        self._bulkheads.append(bulkhead)

    def has_room_for(self, bulkhead: Bulkhead) -> bool:
        """Tell whether one more worker may call the service of `bulkhead`."""
        if bulkhead.in_flight < RESERVED:
            return True
        most = self._number - RESERVED * len(self._bulkheads)
        return sum(each.in_flight for each in self._bulkheads) < most


class ServiceGuard:
    """Bulkhead and circuit breaker of one service or one call with its own: `with guard.call(method, timeout): ...`."""

    def __init__(
        self, service: str, max_calls: int, max_waiting: int, instruments: GuardInstruments, workers: Workers
    ) -> None:
        """At most `max_calls` calls run, and `max_waiting` run or wait. All guards of a process share `workers`."""
        self.service = service.partition(".")[0]
        self._bulkhead = Bulkhead(max_calls, max_waiting, self._busy)
        self._breaker = CircuitBreaker(self._on_change)
        self._workers = workers
        workers.share(self._bulkhead)
        self._instruments = instruments
        instruments.watch(lambda: self._bulkhead.in_flight, lambda: self._breaker.state)

    def require_capacity(self, timeout: float) -> None:
        """Raise ServiceBusy or ServiceSilent if a call with this timeout would be refused at once."""
        self._require_closed()
        self._require_worker()
        self._bulkhead.require_capacity(timeout)

    def call(self, method: str, timeout: float) -> "_Call":
        """Return a context manager for one call of at most `timeout` seconds. Entering it waits for a slot.

        It waits for at most `timeout` seconds too. Raises ServiceBusy or ServiceSilent.
        """
        return _Call(self, method, timeout)

    def enter(self, timeout: float) -> bool:
        """Wait for a slot. Returns whether the call is a probe."""
        self._require_closed()
        self._require_worker()
        self._bulkhead.acquire(current_trace().remaining(timeout))
        try:
            return self._breaker.admit()
        except CircuitOpen as error:  # the circuit has opened while this call waited
            self._bulkhead.release()
            raise self._silent(error.retry_after) from None

    def leave(self, error: BaseException | None, seconds: float, *, is_probe: bool) -> None:
        """Record the end of a call that `enter` let pass, and that took `seconds`."""
        self._bulkhead.record_duration(seconds)
        self._bulkhead.release()
        self._breaker.record(failed=_failed(error, seconds), is_probe=is_probe)

    def responds(self) -> None:
        """Make the next call the probe, because the service has replied to a health check."""
        self._breaker.probe_soon()

    def _require_worker(self) -> None:
        if not self._workers.has_room_for(self._bulkhead):
            raise self._busy()

    def _require_closed(self) -> None:
        try:
            self._breaker.check()
        except CircuitOpen as error:
            raise self._silent(error.retry_after) from None

    def _busy(self) -> ServiceBusy:
        self._instruments.refused("busy")
        detail = f"Too many requests wait for the {self.service} service. Nothing was done; try again shortly."
        return ServiceBusy(detail, retry_after=1)

    def _silent(self, retry_after: float) -> ServiceSilent:
        self._instruments.refused("open")
        detail = f"The {self.service} service has not responded lately. Nothing was done; try again shortly."
        return ServiceSilent(detail, retry_after=math.ceil(retry_after))

    def _on_change(self, state: State) -> None:
        self._instruments.changed(state)
        level = logging.WARNING if state is State.OPEN else logging.INFO
        log.log(level, "the circuit breaker of %s is %s", self.service, state)


class _Call:
    """One call through a guard; see ServiceGuard.call."""

    __slots__ = ("_began", "_guard", "_is_health_check", "_is_probe", "_timeout")

    def __init__(self, guard: ServiceGuard, method: str, timeout: float) -> None:
        self._guard, self._timeout, self._is_health_check = guard, timeout, method == HEALTH
        self._is_probe, self._began = False, 0.0

    def __enter__(self) -> None:
        if not self._is_health_check:
            self._is_probe = self._guard.enter(self._timeout)
        self._began = time.monotonic()

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if not self._is_health_check:
            self._guard.leave(error, time.monotonic() - self._began, is_probe=self._is_probe)
        elif error is None:
            self._guard.responds()


def _failed(error: BaseException | None, seconds: float) -> bool | None:
    """Tell whether a call failed because no reply came; None if its result says nothing about the service."""
    if isinstance(error, NoReply):
        return True if seconds >= TELLING_SECONDS else None
    if error is None or isinstance(error, Overloaded):
        return False
    is_reply = isinstance(error, ServiceError) and not isinstance(error, ServiceUnavailable)
    return False if is_reply else None


class ServiceGuards(SharedExtension):
    """The guards of all services that this process calls."""

    metrics = Metrics()

    def __init__(self) -> None:
        super().__init__()
        self._guards: dict[str, ServiceGuard] = {}
        self._max_calls = self._max_waiting = MAX_WAITING
        self._workers = Workers(MAX_WORKERS)

    def setup(self) -> None:
        """Read the settings. Create the guards of all services that this one may call, so that their metrics exist."""
        workers = max(1, self.container.max_workers - SPARE_WORKERS)
        self._max_calls = int(config.get("RPC_MAX_CALLS_PER_SERVICE") or workers)
        self._max_waiting = int(config.get("RPC_MAX_WAITING_PER_SERVICE", MAX_WAITING))
        self._guards = {}
        self._workers = Workers(int(config.get("HTTP_MAX_REQUESTS", MAX_WORKERS)))
        for called in CALLS.get(self.container.service_name, ()):
            service, _, method = called.partition(".")
            self.of(service)
            for name in WAITING_CALLS | COSTLY_CALLS:
                if name == called or (method == "*" and name.startswith(f"{service}.")):
                    self.of(name)

    def of_call(self, service: str, method: str) -> ServiceGuard:
        """Return the guard of a call."""
        name = f"{service}.{method}"
        return self.of(name if name in WAITING_CALLS or name in COSTLY_CALLS else service)

    def of(self, name: str) -> ServiceGuard:
        """Return the guard of a service, or of one of WAITING_CALLS and COSTLY_CALLS."""
        guard = self._guards.get(name)
        if guard is None:
            max_calls, max_waiting = self._max_calls, self._max_waiting
            if name in WAITING_CALLS:
                max_calls = max_waiting
            elif name in COSTLY_CALLS:
                max_calls, max_waiting = 1, min(max_waiting, MAX_WAITING_COSTLY)
            instruments = GuardInstruments(self.metrics, name)
            guard = ServiceGuard(name, max_calls, max_waiting, instruments, self._workers)
            self._guards[name] = guard
        return guard
