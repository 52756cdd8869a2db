"""/health: whether the process is alive, and whether the suite can take orders."""

import math
from typing import cast

from contracts.base import Json
from contracts.errors import FieldError, ServiceError, ServiceUnavailable
from contracts.operations import LivenessView, ReadinessView
from contracts.services import SERVICES, Services
from extensions.http.message.request import Access, HttpRequest
from extensions.http.routing.authentication import AccessTokens
from extensions.http.routing.route import route
from extensions.messaging.connection import BrokerUnavailable
from extensions.rpc.scatter_gather import call_each

TIMEOUT_SECONDS = 1.5
SHARED_SECONDS = 0.5


class Routes:
    """The routes of probes."""

    services: Services
    tokens: AccessTokens

    @route("GET", "/health/live", access=Access.ANYONE, response=LivenessView, shared_for=math.inf)
    def live(self, _request: HttpRequest) -> Json[LivenessView]:
        """Respond as long as this process runs."""
        return LivenessView(status="ok").to_dict()

    @route("GET", "/health/ready", access=Access.ANYONE, response=ReadinessView, shared_for=SHARED_SECONDS)
    def ready(self, _request: HttpRequest) -> Json[ReadinessView]:
        """Ask every service for its health, and name each essential part that is down.

        When the broker is down, no service can be asked, and only the broker is named.
        """
        reports = call_each(SERVICES, self._ask)
        failing = [FieldError(name, reason) for name, reason in _failing(reports)]
        if not self.tokens.verified.caught_up:
            failing.append(FieldError("gateway", "does not know yet which accounts have changed"))
        if failing:
            detail = "Not ready: " + "; ".join(f"{error.field} {error.message}" for error in failing)
            raise ServiceUnavailable(detail, failing, retry_after=2)
        degraded = any(part != "ok" for parts in reports.values() for part in parts.values())
        readiness = {"status": "degraded" if degraded else "ok", "services": reports}
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


def _failing(reports: dict[str, dict[str, str]]) -> list[tuple[str, str]]:
    """Return the essential parts that are down. Redis is not essential: without it, reads are slower."""
    if any("broker" in parts for parts in reports.values()):
        return [("broker", "is down")]
    found = []
    for service, parts in reports.items():
        if "service" in parts:
            found.append((service, "does not respond"))
        if parts.get("database", "ok") != "ok":
            found.append((f"{service}.database", "is down"))
    return found
