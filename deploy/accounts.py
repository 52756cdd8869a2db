"""The users of the servers and their passwords. extensions/runtime/addresses.py has the variables of the addresses.

What each may do: in the broker deploy/permissions.py, in the databases deploy/databases.py, in Redis
deploy/redis_users.py.
"""

from collections.abc import Mapping

OPERATOR = "operator"
ADMINISTRATOR_DATABASE = "ADMINISTRATOR_DATABASE_URL"


def password_of(user: str, environ: Mapping[str, str]) -> str:
    """Return a user's password: from ORDERS_BROKER_PASSWORD for orders, else, in development, the user's name."""
    return environ.get(f"{user.upper()}_BROKER_PASSWORD") or user


def redis_password_of(service: str, environ: Mapping[str, str]) -> str:
    """Return a service's password of Redis: from ORDERS_REDIS_PASSWORD for orders, else, in development, its name."""
    return environ.get(f"{service.upper()}_REDIS_PASSWORD") or service


def administrator_of(environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the name and the password of the user who may do everything."""
    return environ.get("RABBITMQ_USER") or "guest", environ.get("RABBITMQ_PASSWORD") or "guest"
