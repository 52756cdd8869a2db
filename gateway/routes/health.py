"""/health: whether the process is alive, and whether this gateway can serve its callers."""

from typing import cast

from contracts.base import Json
from contracts.errors import FieldError, ServiceError, ServiceUnavailable
from contracts.operations import LivenessView, ReadinessView
from contracts.services import SERVICES, Services
from extensions.http.message.request import Access, HttpRequest
from extensions.http.routing.authentication import AccessTokens
from extensions.http.routing.dispatcher import HttpServer
from extensions.http.routing.route import route
from extensions.messaging.connection import BrokerUnavailable
from extensions.rpc.scatter_gather import call_each
from extensions.runtime.progress import loops_of

TIMEOUT_SECONDS = 1.5
SHARED_SECONDS = 0.5


class Routes:
    """The routes of probes."""

    services: Services
    tokens: AccessTokens
    http: HttpServer

    @route(
        "GET", "/health/live", access=Access.ANYONE, response=LivenessView, shared_for=SHARED_SECONDS, is_unlimited=True
    )
    def live(self, _request: HttpRequest) -> Json[LivenessView]:
        """Respond as long as this process runs and its loops report progress.

        503 names the loops that are stuck: a defect, which a restart ends. What is away or slow is no reason for it.
        """
        stuck = loops_of(self.http.container).stuck()
        if stuck:
            errors = [FieldError(name, f"has reported no progress for {age:.0f} s") for name, age in stuck.items()]
            raise ServiceUnavailable(f"Not alive: {', '.join(stuck)}", errors, retry_after=2)
        return LivenessView(status="ok").to_dict()

    @route("GET", "/health/ready", access=Access.ANYONE, response=ReadinessView, shared_for=SHARED_SECONDS)
    def ready(self, _request: HttpRequest) -> Json[ReadinessView]:
        """Ask every service for its health, and name each part that is down.

        A service that is away makes it `degraded`: what does not need that service is served as ever. 503 means that
        this gateway can serve nobody: the broker is down, it is stopping, or it has just started.
        """
        if self.http.is_draining:
            raise _not_ready("gateway", "is stopping")
        reports = call_each(SERVICES, self._ask)
        if any("broker" in parts for parts in reports.values()):
            raise _not_ready("broker", "is down")
        if not self.tokens.verified.caught_up:
            raise _not_ready("gateway", "does not know yet which accounts have changed")
        is_degraded = any(part != "ok" for parts in reports.values() for part in parts.values())
        readiness = {"status": "degraded" if is_degraded else "ok", "services": reports}
        return cast("Json[ReadinessView]", readiness)

    def _ask(self, service: str) -> dict[str, str]:
        """Return the state of a service's parts, `ok` or `down`; of the service itself where it does not respond."""
        try:
            health = self.services.within(TIMEOUT_SECONDS).operated(service).health()
        except BrokerUnavailable:
            return {"broker": "down"}
        except ServiceError:
            return {"service": "down"}
        # The reason is only in the service's log: it may contain addresses.
        return {part: "ok" if state == "ok" else "down" for part, state in health["parts"].items()}


def _not_ready(part: str, reason: str) -> ServiceUnavailable:
    return ServiceUnavailable(f"Not ready: {part} {reason}", [FieldError(part, reason)], retry_after=2)
