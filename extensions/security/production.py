"""Checks at the start of a service in production: it does not start with settings for development."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from contracts.services import SERVICES
from extensions.runtime.addresses import (
    database_url,
    database_variable,
    own_amqp_uri,
    own_redis_url,
    redis_variable,
    uri_variable,
)
from extensions.runtime.parsed_settings import is_production, switched_on

COMMON_PASSWORDS = frozenset({"", "guest", "suite", "postgres", "redis", "rabbitmq", "admin", "password", "secret"})


DEVELOPMENT_MAILBOX = "mailbox"
"""The host of the mailbox in compose (deploy/mailbox.py), which sends nothing on."""


class UnfitForProduction(RuntimeError):
    """A service in production has settings for development; the text names them."""


def is_common_password(user: str, password: str) -> bool:
    """Tell whether `password` is among the first that an attacker would try for `user`."""
    return password.casefold() in COMMON_PASSWORDS | {user.casefold()}


def require_own_secrets(config: Mapping[str, Any], service: str, *, redis: bool = False) -> None:
    """Raise UnfitForProduction if `service` would run in production with a common password.

    With `redis`, the address of Redis is checked; without, those of the broker and of the database.
    """
    if not is_production(config):
        return
    addresses = _redis_address(config, service) if redis else _addresses(config, service)
    problems = [
        f"{name} has no password, or the one of development"
        for name, url in addresses.items()
        if not has_own_password(url)
    ]
    if service == "users" and not redis and _is_readable(Path(config["JWT_PRIVATE_KEY_FILE"])):
        problems.append("the file of JWT_PRIVATE_KEY_FILE can be read by every user of the machine")
    if not redis and switched_on(config.get("OUTBOUND_ALLOW_LOOPBACK", "no")):
        problems.append("OUTBOUND_ALLOW_LOOPBACK lets webhooks reach this machine")
    if not redis and config.get("SUPERVISOR_URL", "none") != "none":
        problems.append("SUPERVISOR_URL lets administrators end services")
    if service == "notifications" and not redis and config.get("SMTP_HOST") == DEVELOPMENT_MAILBOX:
        problems.append("SMTP_HOST is the mailbox for development: name your server, or set it to none")
    if problems:
        raise UnfitForProduction(f"ENVIRONMENT is production, and {service} does not start: {'; '.join(problems)}")


def _addresses(config: Mapping[str, Any], service: str) -> dict[str, str]:
    """Return the addresses of the service's broker and database by environment variable."""
    own = own_amqp_uri(config, service)
    broker = {uri_variable(service): own} if own else {"AMQP_URI": config["AMQP_URI"]}
    return broker | ({database_variable(service): database_url(config, service)} if service in SERVICES else {})


def _redis_address(config: Mapping[str, Any], service: str) -> dict[str, str]:
    own = own_redis_url(config, service)
    return {redis_variable(service): own} if own else {"REDIS_URL": config["REDIS_URL"]}


def has_own_password(url: str) -> bool:
    """Tell whether the URL has a password that is not a common one."""
    address = urlsplit(url)
    return not is_common_password(unquote(address.username or ""), unquote(address.password or ""))


def _is_readable(path: Path) -> bool:
    return bool(path.stat().st_mode & 0o004)
