"""The registry: every service behind the gateway, with its RPC interface. The only list of services in the project."""

from typing import cast

from contracts.catalog import CatalogRpc
from contracts.inventory import InventoryRpc
from contracts.notifications import NotificationsRpc
from contracts.operations import OperatedRpc, ParticipantRpc
from contracts.orders import OrdersRpc
from contracts.payments import PaymentsRpc
from contracts.users import UsersRpc


class Services:
    """A service is one line here: its name and its RPC interface. Its folder and its database have the same name.

    Service methods use an object of this class: `self.services.orders.get_order(...)` (extensions/rpc/client.py).
    """

    users: UsersRpc
    catalog: CatalogRpc
    orders: OrdersRpc
    inventory: InventoryRpc
    payments: PaymentsRpc
    notifications: NotificationsRpc

    def within(self, seconds: float) -> "Services":
        """Return the same services; each call may take `seconds`."""
        raise NotImplementedError

    def operated(self, name: str) -> OperatedRpc:
        """Return the service with this name, with the methods that all services have."""
        return cast("OperatedRpc", getattr(self, name))

    def participant(self, name: str) -> ParticipantRpc:
        """Return the service with this name, which must be one of PARTICIPANTS."""
        return cast("ParticipantRpc", getattr(self, name))


SERVICES: tuple[str, ...] = tuple(Services.__annotations__)
PARTICIPANTS = tuple(name for name, rpc in Services.__annotations__.items() if ParticipantRpc in rpc.__mro__)
"""The services that keep records about orders, which the consistency check compares with the orders."""
GATEWAY = "gateway"
PROCESSES = (*SERVICES, GATEWAY)
"""Every kind of process, in the order in which they start: the gateway needs the others."""
