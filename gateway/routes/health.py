"""/health: is the process alive, and can the suite take orders."""

import math
from typing import Any

from contracts.errors import FieldError, ServiceError, ServiceUnavailable
from contracts.operations import LivenessView, ReadinessView
from contracts.services import SERVICES
from extensions.http.message.request import Access, HttpRequest
from extensions.http.routing.route import route
from extensions.messaging.connection import BrokerUnavailable
from extensions.rpc.scatter_gather import call_each

TIMEOUT_SECONDS = 1.5
SHARED_SECONDS = 0.5


class Routes:
    """What an operator's probes ask."""

    services: Any
    tokens: Any

    @route("GET", "/health/live", access=Access.ANYONE, response=LivenessView, shared_for=math.inf)
    def live(self, _request: HttpRequest) -> Any:
        """Answer as long as this process does."""
        return {"status": "ok"}

    @route("GET", "/health/ready", access=Access.ANYONE, response=ReadinessView, shared_for=SHARED_SECONDS)
    def ready(self, _request: HttpRequest) -> Any:
        """Ask every service for its health; what is essential and does not work is named.

        Without the broker nobody can be asked, so it is named alone.
        """
        reports = call_each(SERVICES, self._ask)
        failing = [FieldError(name, reason) for name, reason in _failing(reports)]
        if not self.tokens.verified.caught_up:
            failing.append(FieldError("gateway", "does not know yet which accounts have changed"))
        if failing:
            detail = "Not ready: " + "; ".join(f"{error.field} {error.message}" for error in failing)
            raise ServiceUnavailable(detail, failing, retry_after=2)
        degraded = any(part != "ok" for parts in reports.values() for part in parts.values())
        return {"status": "degraded" if degraded else "ok", "services": reports}

    def _ask(self, service: str) -> dict[str, str]:
        """Return the state of a service's parts, `ok` or `down`; of the service itself where it does not answer."""
        try:
            health = getattr(self.services.within(TIMEOUT_SECONDS), service).health()
        except BrokerUnavailable:
            return {"broker": "down"}
        except ServiceError:
            return {"service": "down"}
        # Why it is down is for the service's log: the reason may name addresses.
        return {part: "ok" if state == "ok" else "down" for part, state in health["parts"].items()}


def _failing(reports: dict[str, dict[str, str]]) -> list[tuple[str, str]]:
    """Return what the suite cannot work without, and does. Without Redis it is only slower."""
    if any("broker" in parts for parts in reports.values()):
        return [("broker", "is down")]
    found = []
    for service, parts in reports.items():
        if "service" in parts:
            found.append((service, "does not answer"))
        if parts.get("database", "ok") != "ok":
            found.append((f"{service}.database", "is down"))
    return found
