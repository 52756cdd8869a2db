"""Every way into the gateway. Start it with `nameko run --config config.yml gateway.service`."""

from contracts.services import Services
from contracts.users import ACCESS_TOKEN_SECONDS, Changes, ChangesWithin, UserUpdated
from extensions.cache.versioned_cache import Cache
from extensions.http.routing.authentication import TokensProvider
from extensions.messaging.broadcast import on_broadcast
from extensions.rpc.client import RpcClient
from extensions.storage.periodic import periodic
from gateway import routes


class GatewayService(routes.AllRoutes):
    """The REST API of the suite, by its resources."""

    name = "gateway"
    services: Services = RpcClient()
    orders_cache, catalog_cache = Cache("orders"), Cache("catalog")  # what these write, for what is asked most
    tokens = TokensProvider()

    @on_broadcast(UserUpdated)
    def on_user_updated(self, event: UserUpdated) -> None:
        """Let a new role or a deactivation hold for the tokens that are out already."""
        self.tokens.verified.update(event)

    @periodic(seconds=30, transaction=False, every_process=True)
    def catch_up_with_users(self) -> None:
        """Learn what user.updated said while this process was not there, or cut off: at the start and ever after."""
        page = self.services.users.list_changed(ChangesWithin(seconds=ACCESS_TOKEN_SECONDS))
        self._take_in(page)
        while page.get("until"):
            rest = ChangesWithin.parse({"seconds": ACCESS_TOKEN_SECONDS, "until": page["until"]})
            page = self.services.users.list_changed(rest)
            self._take_in(page)
        self.tokens.verified.caught_up = True

    def _take_in(self, page: Changes) -> None:
        for update in page["items"]:
            self.tokens.verified.update(UserUpdated.model_validate(update))
