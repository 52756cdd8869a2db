"""The names and passwords with which somebody logs in to the broker; what each may do there: deploy/permissions.py."""

from collections.abc import Mapping

OPERATOR = "operator"


def uri_variable(user: str) -> str:
    """Return the variable of config.yml that holds a user's address of the broker: ORDERS_AMQP_URI for orders."""
    return f"{user.upper()}_AMQP_URI"


def password_of(user: str, environ: Mapping[str, str]) -> str:
    """Return a user's password: from ORDERS_BROKER_PASSWORD for orders, else, in development, the user's name."""
    return environ.get(f"{user.upper()}_BROKER_PASSWORD") or user


def administrator_of(environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the name and the password of the user who may do everything."""
    return environ.get("RABBITMQ_USER") or "guest", environ.get("RABBITMQ_PASSWORD") or "guest"
