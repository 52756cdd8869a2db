"""Where each service finds its broker user, Redis user, database and metrics port.

The environment has a variable for each service and kind of address: ORDERS_AMQP_URI, ORDERS_REDIS_URL,
ORDERS_DATABASE_URL, ORDERS_OWNER_DATABASE_URL, ORDERS_METRICS_ADDRESS. An address in the configuration wins over the
variable: AMQP_URIS, REDIS_URLS, DB_URIS, DB_OWNER_URIS and METRICS_ADDRESSES are mappings by service.
"""

import os
from collections.abc import Mapping
from typing import Any

from contracts.services import SERVICES

Config = Mapping[str, Any]
DEFAULT_REDIS_URL = "redis://127.0.0.1:6379/0"


class UnknownService(LookupError):
    """A service has no database address and is not in the registry."""


def uri_variable(user: str) -> str:
    """Return the variable that holds a user's address of the broker: ORDERS_AMQP_URI for orders."""
    return f"{user.upper()}_AMQP_URI"


def redis_variable(service: str) -> str:
    """Return the variable that holds a service's address of Redis: ORDERS_REDIS_URL for orders."""
    return f"{service.upper()}_REDIS_URL"


def database_variable(service: str) -> str:
    """Return the variable that holds the address of a service's database: ORDERS_DATABASE_URL for orders."""
    return f"{service.upper()}_DATABASE_URL"


def owner_variable(service: str) -> str:
    """Return the variable that holds the address of the database's owner, for migrations: ORDERS_OWNER_DATABASE_URL."""
    return f"{service.upper()}_OWNER_DATABASE_URL"


def metrics_variable(service: str) -> str:
    """Return the variable that holds where a service serves its metrics: ORDERS_METRICS_ADDRESS."""
    return f"{service.upper()}_METRICS_ADDRESS"


def own_amqp_uri(config: Config, service: str) -> str:
    """Return the address of a service's own broker user; empty where the service has none."""
    return _configured(config, "AMQP_URIS", service) or os.environ.get(uri_variable(service), "")


def amqp_uri(config: Config, service: str) -> str:
    """Return the address of a service's own broker user, or else AMQP_URI."""
    return own_amqp_uri(config, service) or str(config["AMQP_URI"])


def own_redis_url(config: Config, service: str) -> str:
    """Return the address of a service's own Redis user; empty where the service has none."""
    return _configured(config, "REDIS_URLS", service) or os.environ.get(redis_variable(service), "")


def redis_url(config: Config, service: str) -> str:
    """Return the address of a service's own Redis user, or else REDIS_URL."""
    return own_redis_url(config, service) or str(config.get("REDIS_URL", DEFAULT_REDIS_URL))


def database_url(config: Config, service: str, base: str = "Base") -> str:
    """Return the address of a service's database. The default is a local server where the password is the role's name.

    Raises UnknownService where the service is not in the registry.
    """
    configured = _configured(config, "DB_URIS", f"{service}:{base}")
    if configured:
        return configured
    if service not in SERVICES:
        raise UnknownService(f"{service} has no database: add the service to contracts/services.py")
    default = f"postgresql+psycopg2://{service}:{service}@127.0.0.1:5432/{service}"
    return os.environ.get(database_variable(service), default)


def owner_database_url(config: Config, service: str) -> str:
    """Return the address of the database's owner, for migrations; the service's own where the owner has none."""
    owner = _configured(config, "DB_OWNER_URIS", service) or os.environ.get(owner_variable(service), "")
    return owner or database_url(config, service)


def metrics_address(config: Config, service: str) -> str:
    """Return where a service serves its metrics, `host:port` or `host:first-last`; empty where it serves none."""
    default = os.environ.get("METRICS_ADDRESS", "")
    return _configured(config, "METRICS_ADDRESSES", service) or os.environ.get(metrics_variable(service), default)


def _configured(config: Config, setting: str, key: str) -> str:
    return (config.get(setting) or {}).get(key) or ""
