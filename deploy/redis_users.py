"""The users of Redis, and what each may do there, as the file that it loads: `python -m deploy.redis_users FILE`.

A service reads and changes its own cache, reads those that it shows, and has the counters of the limits that it
watches: nothing else of what is in Redis, and no command that its code does not send. Made at every start, of the
environment's passwords; a Redis that runs already reads it when it is started again.
"""

import argparse
import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from contracts.services import GATEWAY, SERVICES
from contracts.users import TooManyFailedLogins
from deploy.accounts import redis_password_of
from deploy.settings import load
from extensions.runtime.settings import UnknownEnvironment, is_production
from extensions.security.production import is_common_password

ADMINISTRATOR = "default"  # who sends no name

# What the scripts send counts as sent by who runs them.
READ = "+get +hget"
WRITE = f"{READ} +set +hset +expire +del +unlink +type +eval +evalsha +script|load"
OF_CACHES = f"{WRITE} +scan"
OF_LIMITS = f"{WRITE} +time"
LIMITS_OF_REQUESTS = ("per_address", "per_user", "login", "register")

RULES: Mapping[str, str] = {
    **dict.fromkeys(SERVICES, ""),  # whether Redis is there, everybody may ask
    "users": f"{OF_LIMITS} ~limits:{TooManyFailedLogins.policy}:*",
    "catalog": f"{OF_CACHES} ~catalog:*",
    # Whoever asks for the generation of the products first begins one.
    "orders": f"{OF_CACHES} ~orders:* ~catalog:products:generation",
    GATEWAY: " ".join(
        [OF_LIMITS, *(f"~limits:{name}:*" for name in LIMITS_OF_REQUESTS), "%R~orders:order:*", "%R~catalog:product:*"]
    ),
}
"""For each service, in the words of Redis' ACL, the commands and keys that are its."""


class WeakPassword(Exception):
    """Production would run with a password that everybody knows; the text says whose."""


def build(environ: Mapping[str, str], *, production: bool) -> str:
    """Return the file; no password stands in it. Raises WeakPassword.

    Without a REDIS_PASSWORD the administrator has none: then nobody but this machine may reach Redis.
    """
    administrators = environ.get("REDIS_PASSWORD") or ""
    passwords = {service: redis_password_of(service, environ) for service in RULES}
    weak = [
        user for user, word in {**passwords, ADMINISTRATOR: administrators}.items() if is_common_password(user, word)
    ]
    if production and weak:
        raise WeakPassword(f"ENVIRONMENT is production: give {', '.join(sorted(weak))} passwords of their own in Redis")
    lines = [f"user {ADMINISTRATOR} on {_login(administrators)} ~* &* +@all"]
    lines += [f"user {name} on {_login(passwords[name])} resetchannels -@all +ping {RULES[name]}" for name in RULES]
    return "".join(f"{line.strip()}\n" for line in lines)


def _login(password: str) -> str:
    return f"#{hashlib.sha256(password.encode()).hexdigest()}" if password else "nopass"


def write(path: Path, environ: Mapping[str, str], *, production: bool) -> None:
    """Write the file, whole or not at all. Redis' container has another user than ours: it is open to be read."""
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
