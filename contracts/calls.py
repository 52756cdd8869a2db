"""Who may call whom by RPC. The broker lets nothing else through: deploy/permissions.py makes its users from this."""

from contracts.events import EVENTS
from contracts.services import GATEWAY, SERVICES

CALLS: dict[str, tuple[str, ...]] = {
    # Everything that a client may ask for comes through it.
    GATEWAY: tuple(f"{service}.*" for service in SERVICES),
    "orders": (
        "catalog.get_products",
        # the comparison of the books
        *(f"{service}.audit" for service in SERVICES if service != "orders"),
        *(f"{service}.audit_rows" for service in ("inventory", "payments", "notifications")),
    ),
}
"""For each service that calls others `<service>.<method>`, or `<service>.*` for all of its methods."""


def bus_services() -> tuple[str, ...]:
    """Return every service that has to do with the broker: our own, and whoever an event names besides."""
    named = {one for event in EVENTS.values() for one in (event.producer, *event.consumers, *event.listeners)}
    return (*SERVICES, GATEWAY, *sorted(named - {*SERVICES, GATEWAY}))
