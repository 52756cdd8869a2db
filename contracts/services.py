"""The registry: every service behind the gateway, with its RPC interface. The only list of services in the project."""

from typing import Any


class Services:
    """A service is one line here: its name, which is also that of its folder and its database, and its RPC interface.

    What a worker gets as `self.services` looks like this: `self.services.orders.get_order(...)`.
    """

    users: Any
    catalog: Any
    orders: Any
    inventory: Any
    payments: Any
    notifications: Any


SERVICES: tuple[str, ...] = tuple(Services.__annotations__)
GATEWAY = "gateway"
PROCESSES = (*SERVICES, GATEWAY)
"""Every kind of process, in the order in which they start: the gateway needs the others."""
