"""The entrypoints of the gateway. Start it with `nameko run --config config.yml gateway.service`."""

from contracts.services import Services
from contracts.users import ACCESS_TOKEN_SECONDS, Changes, ChangesWithin, UserUpdated
from extensions.cache.versioned_cache import Cache
from extensions.http.routing.authentication import AccessTokensProvider
from extensions.http.routing.dispatcher import HttpServerProvider
from extensions.messaging.broadcast import on_broadcast
from extensions.observability.circuits import Circuits, CircuitsProvider
from extensions.rpc.client import RpcClient
from extensions.runtime.progress import report_current_progress
from extensions.storage.periodic import periodic
from gateway import routes
from gateway.console import Console
from gateway.live.provider import LiveProvider


class GatewayService(routes.AllRoutes):
    """The REST API of the suite."""

    name = "gateway"
    services: Services = RpcClient()
    orders_cache, catalog_cache = Cache("orders"), Cache("catalog")  # of other services; only read here
    tokens = AccessTokensProvider()
    http = HttpServerProvider()
    streams = LiveProvider()
    console = Console()
    circuits: Circuits = CircuitsProvider()

    @on_broadcast(UserUpdated)
    def on_user_updated(self, event: UserUpdated) -> None:
        """Refuse the access tokens that were issued before a change of their account."""
        self.tokens.verified.update(event)

    @periodic(seconds=30, transaction=False, every_process=True)
    def catch_up_with_users(self) -> None:
        """Load the user.updated events that this process missed while it was down or disconnected."""
        page = self.services.users.list_changed(ChangesWithin(seconds=ACCESS_TOKEN_SECONDS))
        self._apply(page)
        while page.get("until"):
            rest = ChangesWithin.parse({"seconds": ACCESS_TOKEN_SECONDS, "until": page["until"]})
            page = self.services.users.list_changed(rest)
            self._apply(page)
            report_current_progress()
        self.tokens.verified.caught_up = True

    def _apply(self, page: Changes) -> None:
        for update in page["items"]:
            self.tokens.verified.update(UserUpdated.model_validate(update))
