"""Which service may call which RPC methods. The broker refuses everything else: deploy/broker_users.py makes its users
from this table."""

from functools import lru_cache

from contracts.events import EVENTS
from contracts.services import GATEWAY, PARTICIPANTS, PROCESSES, SERVICES

CALLS: dict[str, tuple[str, ...]] = {
    # All requests of clients come through the gateway.
    GATEWAY: tuple(f"{service}.*" for service in SERVICES),
    "inventory": ("catalog.get_products",),
    "orders": (
        "catalog.get_products",
        # the consistency check
        *(f"{service}.audit" for service in SERVICES if service != "orders"),
        *(f"{service}.audit_rows" for service in PARTICIPANTS),
    ),
}
"""For each service that calls others: `<service>.<method>`, or `<service>.*` for all of its methods."""


class CallNotAllowed(Exception):
    """A service calls a method that the broker would refuse; the text says what to add where."""


@lru_cache(maxsize=1000)
def require_allowed(caller: str, service: str, method: str) -> None:
    """Raise CallNotAllowed unless `caller` may call `service`.`method`."""
    if service not in SERVICES:
        raise CallNotAllowed(f"{caller} calls {service}, which is no service: add it to contracts/services.py")
    if service != caller and not {f"{service}.{method}", f"{service}.*"} & {*CALLS.get(caller, ())}:
        call = f"{service}.{method}"
        raise CallNotAllowed(
            f"{caller} may not call {call}: add it to contracts/call_permissions.py and restart the broker"
        )


def bus_services() -> tuple[str, ...]:
    """Return every service that needs a user of the broker: our own, and those that only an event names."""
    named = {one for event in EVENTS.values() for one in (event.producer, *event.consumers, *event.listeners)}
    return (*PROCESSES, *sorted(named - {*PROCESSES}))
