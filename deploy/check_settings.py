"""Refuses production with passwords of development: `python -m deploy.check_settings`, before PostgreSQL starts.

PostgreSQL's image makes the administrator's password once, with the volume. To refuse afterwards would leave a volume
with the password of development. The checks of each part (`prepare`, the services) remain: this one is for compose.
"""

import os
import sys
from collections.abc import Mapping

from deploy.config_file import load
from deploy.databases import configured, weak_addresses
from deploy.definitions import weak_users
from deploy.redis_users import ADMINISTRATOR, weak_passwords
from deploy.server_users import ADMINISTRATOR_DATABASE, OPERATOR
from extensions.runtime.parsed_settings import UnknownEnvironment, is_production

# What users of compose set, where the code has another name for it.
NAMES = {ADMINISTRATOR_DATABASE: "POSTGRES_PASSWORD"}


def missing(environ: Mapping[str, str]) -> list[str]:
    """Return the settings that have no password of their own, by the names of .env."""
    brokers = [_variable(user, "RABBITMQ", "BROKER", environ) for user in weak_users(environ)]
    caches = [_variable(user, "REDIS", "REDIS", environ) for user in weak_passwords(environ)]
    databases = [
        NAMES.get(one, one) for one in weak_addresses(environ.get(ADMINISTRATOR_DATABASE), configured().values())
    ]
    return sorted(databases) + sorted(brokers) + sorted(caches)


def _variable(user: str, administrator: str, kind: str, environ: Mapping[str, str]) -> str:
    names = {ADMINISTRATOR, environ.get("RABBITMQ_USER") or "guest"}
    return f"{administrator}_PASSWORD" if user in names - {OPERATOR} else f"{user.upper()}_{kind}_PASSWORD"


def main() -> int:
    """The command line. Outside production everything is accepted."""
    try:
        settings = missing(os.environ) if is_production(load()) else []
    except UnknownEnvironment as error:
        print(error, file=sys.stderr)
        return 1
    if not settings:
        return 0
    print(
        "ENVIRONMENT is production, and these settings are missing or have a password of development. Set them in .env "
        "(docs/operating.md, Production); nothing was made yet:",
        *settings,
        sep="\n  ",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
