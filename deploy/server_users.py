"""The names and passwords of the servers' users. extensions/runtime/addresses.py has the variables of the addresses.

Their permissions are in deploy/broker_users.py (RabbitMQ), deploy/databases.py and deploy/redis_users.py.
"""

from collections.abc import Mapping

OPERATOR = "operator"
ADMINISTRATOR_DATABASE = "ADMINISTRATOR_DATABASE_URL"


def password_of(user: str, environ: Mapping[str, str]) -> str:
    """Return a user's broker password: ORDERS_BROKER_PASSWORD for orders; without it, the user's name (development)."""
    return environ.get(f"{user.upper()}_BROKER_PASSWORD") or user


def redis_password_of(service: str, environ: Mapping[str, str]) -> str:
    """Return a service's Redis password: ORDERS_REDIS_PASSWORD for orders; without it, its name (development)."""
    return environ.get(f"{service.upper()}_REDIS_PASSWORD") or service


def administrator_of(environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the name and password of the broker's administrator."""
    return environ.get("RABBITMQ_USER") or "guest", environ.get("RABBITMQ_PASSWORD") or "guest"
