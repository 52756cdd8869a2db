"""Writes the ACL file with the users of Redis and their permissions: `python -m deploy.redis_users FILE`.

A service may read and write its own cache, read the caches that it uses, and use the counters of its own limits. It may
send only the commands that its code uses. The file is written at every start, with the passwords of the environment;
a running Redis reads it at its next start.
"""

import argparse
import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from contracts.services import GATEWAY, SERVICES
from contracts.users import TooManyFailedLogins
from deploy.config_file import load
from deploy.server_users import redis_password_of
from extensions.runtime.parsed_settings import UnknownEnvironment, is_production
from extensions.security.production import is_common_password

ADMINISTRATOR = "default"  # the user of clients that send no name

# A script needs the permissions for the commands that it sends.
READ = "+get +hget"
WRITE = f"{READ} +set +hset +expire +del +unlink +type +eval +evalsha +script|load"
OF_CACHES = f"{WRITE} +scan"
OF_LIMITS = f"{WRITE} +time"
LIMITS_OF_REQUESTS = ("per_address", "per_user", "login", "register", "password_reset")

RULES: Mapping[str, str] = {
    **dict.fromkeys(SERVICES, ""),  # every user may send PING
    "users": f"{OF_LIMITS} ~limits:{TooManyFailedLogins.policy}:*",
    "catalog": f"{OF_CACHES} ~catalog:*",
    # The first reader of the products' generation creates it.
    "orders": f"{OF_CACHES} ~orders:* ~catalog:products:generation",
    GATEWAY: " ".join(
        [OF_LIMITS, *(f"~limits:{name}:*" for name in LIMITS_OF_REQUESTS), "%R~orders:order:*", "%R~catalog:product:*"]
    ),
}
"""For each service, its commands and keys as Redis ACL rules."""


class WeakPassword(Exception):
    """Production would run with a well-known password; the text says whose."""


def build(environ: Mapping[str, str], *, production: bool) -> str:
    """Return the content of the file, with password hashes only. Raises WeakPassword.

    Without REDIS_PASSWORD the administrator has no password: then only this machine may reach Redis.
    """
    passwords = _passwords(environ)
    weak = weak_passwords(environ)
    if production and weak:
        raise WeakPassword(f"ENVIRONMENT is production: give {', '.join(weak)} passwords of their own in Redis")
    lines = [f"user {ADMINISTRATOR} on {_login(passwords[ADMINISTRATOR])} ~* &* +@all"]
    lines += [f"user {name} on {_login(passwords[name])} resetchannels -@all +ping {RULES[name]}" for name in RULES]
    return "".join(f"{line.strip()}\n" for line in lines)


def weak_passwords(environ: Mapping[str, str]) -> list[str]:
    """Return the users with a well-known password."""
    return sorted(user for user, password in _passwords(environ).items() if is_common_password(user, password))


def _passwords(environ: Mapping[str, str]) -> dict[str, str]:
    own = {service: redis_password_of(service, environ) for service in RULES}
    return own | {ADMINISTRATOR: environ.get("REDIS_PASSWORD") or ""}


def _login(password: str) -> str:
    return f"#{hashlib.sha256(password.encode()).hexdigest()}" if password else "nopass"


def write(path: Path, environ: Mapping[str, str], *, production: bool) -> None:
    """Write the file atomically. It is readable by all, because the container of Redis runs as another user."""
    text = build(environ, production=production)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.write_text(text)
    unfinished.replace(path)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m deploy.redis_users", description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", default=os.environ.get("REDIS_USERS_FILE"))
    path = parser.parse_args().file
    if path is None:
        return 0
    try:
        write(Path(path), os.environ, production=is_production(load()))
    except (WeakPassword, UnknownEnvironment) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"the users of Redis are in {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
