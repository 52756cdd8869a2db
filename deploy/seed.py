"""Creates the demo shop: an admin, a customer, products with stock. `python -m deploy.seed`, while the services run.

It calls the services by RPC. A second run adds what an interrupted run did not create, and restores the roles of both
accounts. It changes nothing else.
"""

import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from deploy.config_file import load
from extensions.runtime.parsed_settings import UnknownEnvironment, is_production

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # eventlet prints a deprecation warning when it is imported
    from nameko.exceptions import RemoteError, RpcTimeout, UnknownService
    from nameko.standalone.rpc import ClusterRpcClient

ADMIN = "admin@example.com"
CUSTOMER = "demo@example.com"
DEFAULT_PASSWORD = "Demo-pass-2026!"  # public, so there is no seed in production
TIMEOUT = 15.0  # seconds for one call
START_SECONDS = 60.0  # how long to wait for services that are starting


@dataclass(frozen=True)
class Product:
    """A product of the demo shop, and its units in stock."""

    sku: str
    name: str
    price: str
    stock: int
    description: str


PRODUCTS = (
    Product(
        "TEA-RIZE-1000",
        "Rize Black Tea, 1 kg",
        "189.90",
        5000,
        "First harvest, loose leaf, from the slopes of Rize.",
    ),
    Product(
        "COFFEE-TURK-250",
        "Turkish Coffee, 250 g",
        "149.90",
        4000,
        "Ground as fine as flour, roasted this week.",
    ),
    Product(
        "CEZVE-COPPER-3",
        "Copper Cezve for Three",
        "649.00",
        1500,
        "Hand-hammered, tinned inside, a long brass handle.",
    ),
    Product(
        "TEAPOT-DOUBLE-2L",
        "Double Teapot, 2 l",
        "1290.00",
        1200,
        "Stainless steel, for tea that steeps over steam.",
    ),
    Product(
        "GLASS-TULIP-6",
        "Six Tulip Tea Glasses",
        "239.50",
        3000,
        "Thin at the waist, so that the tea stays hot below.",
    ),
    Product(
        "TOWEL-PESHTEMAL",
        "Peshtemal, 100 x 180 cm",
        "420.00",
        2500,
        "Cotton, woven in Denizli; dries in an hour.",
    ),
    Product(
        "SOAP-OLIVE-4",
        "Olive Oil Soap, Four Bars",
        "159.99",
        8000,
        "Nothing in it but olive oil, water and lye.",
    ),
    Product("HONEY-PINE-850", "Pine Honey, 850 g", "389.00", 1800, "Dark, from the red pines of the Aegean coast."),
    Product("KILIM-WOOL-120", "Wool Kilim, 120 x 180 cm", "8750.00", 1000, "Natural dyes; no two are quite alike."),
    Product("LAMP-MOSAIC-1", "Mosaic Lamp", "1875.25", 1100, "Coloured glass set by hand on a blown globe."),
    Product(
        "CARPET-SILK-150",
        "Hereke Silk Carpet",
        "24900.00",
        1000,
        "A million knots; costs more than the demo card allows.",
    ),
    Product(
        "BACKGAMMON-WALNUT",
        "Walnut Backgammon Set",
        "2150.00",
        1,
        "Inlaid with mother of pearl. The last one.",
    ),
    Product("SAMOVAR-BRASS-5L", "Brass Samovar, 5 l", "3400.00", 0, "Sold out; more when the smith has time."),
)


class SeedError(Exception):
    """The demo shop could not be created; the text says why."""


def seed(rpc: Any, password: str, say: Callable[[str], None] = print) -> None:
    """Create what is missing, with a Nameko RPC proxy."""
    for email, roles in ((ADMIN, ["customer", "admin"]), (CUSTOMER, ["customer"])):
        user = _user(rpc, email, password)
        if user is None:
            say(f"{email} has another password and is not changed")
        elif set(user["roles"]) != set(roles):
            rpc.users.set_roles(user["id"], roles)
    # lists show the newest product first, so add them in reverse order
    added = sum(_product(rpc, product) for product in reversed(PRODUCTS))
    say(f"{added} of {len(PRODUCTS)} products added" if added else "the demo shop exists already")


def _user(rpc: Any, email: str, password: str) -> dict[str, Any] | None:
    """Return the user with this address; register it if there is none. None if it exists with another password."""
    try:
        return rpc.users.register(email, password)["user"]
    except RemoteError as error:
        if error.exc_type != "UserAlreadyExists":
            raise
    try:
        return rpc.users.login(email, password)["user"]
    except RemoteError as error:
        if error.exc_type != "InvalidCredentials":
            raise
    return None


def _product(rpc: Any, product: Product) -> bool:
    """Create the product and its stock if they are missing; True if something was created."""
    found = _first(rpc.catalog.list_products(sku=product.sku, only_active=False))
    existing = found or rpc.catalog.create_product(
        sku=product.sku, name=product.name, price=product.price, description=product.description
    )
    if found and _has_stock_row(rpc, found["id"]):
        return False
    rpc.inventory.set_stock(existing["id"], product.sku, product.stock)
    return True


def _has_stock_row(rpc: Any, product_id: str) -> bool:
    try:
        rpc.inventory.get_stock(product_id)
    except RemoteError as error:
        if error.exc_type.endswith("NotFound"):
            return False
        raise
    return True


def _first(listing: dict[str, Any]) -> dict[str, Any] | None:
    items = listing["items"]
    return items[0] if items else None


def run(say: Callable[[str], None] = print) -> None:
    """Seed the running suite of config.yml. Waits for services that are starting. Raises SeedError if it fails."""
    settings = load()
    if is_production(settings):
        raise SeedError("ENVIRONMENT is production, and the demo accounts' password is public: nothing was seeded")
    password = os.environ.get("DEMO_PASSWORD") or DEFAULT_PASSWORD
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with ClusterRpcClient(timeout=TIMEOUT) as rpc:
                return seed(rpc, password, say)
        except (RpcTimeout, UnknownService, OSError) as error:
            if time.monotonic() > deadline:
                raise SeedError(f"the services do not respond ({error!r}); are they running?") from error
            time.sleep(1)
        except RemoteError as error:
            raise SeedError(f"a service returned an error: {error}") from error


def main() -> int:
    """The command line."""
    try:
        run()
    except (SeedError, UnknownEnvironment) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
