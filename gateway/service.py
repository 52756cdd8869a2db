"""Every way into the gateway. Start it with `nameko run --config config.yml gateway.service`."""

from contracts.users import UserUpdated
from extensions.broadcast import hears
from extensions.http.auth import TokensProvider
from extensions.rpc_client import RpcClient
from gateway.routes import health, inventory, notifications, orders, payments, products, users


class GatewayService(
    users.Routes,
    products.Routes,
    orders.Routes,
    inventory.Routes,
    payments.Routes,
    notifications.Routes,
    health.Routes,
):
    """The REST API of the suite, by its resources."""

    name = "gateway"
    services = RpcClient()
    tokens = TokensProvider()

    @hears(UserUpdated)
    def on_user_updated(self, event: UserUpdated) -> None:
        """Let a new role or a deactivation hold for the tokens that are out already."""
        self.tokens.verified.update(event)
