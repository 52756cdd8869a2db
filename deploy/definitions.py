"""Writes the definitions that RabbitMQ loads at its start: users, permissions, exchanges, queues.

`python -m deploy.definitions FILE` runs before every start of the broker, with the passwords of the environment.
Loading definitions again updates what differs and deletes nothing: see "leftovers" in docs/security.md.
"""

import argparse
import base64
import hashlib
import json
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.broker_users import User, users
from deploy.config_file import load
from deploy.server_users import administrator_of, password_of
from extensions.messaging import topology
from extensions.runtime.parsed_settings import UnknownEnvironment, is_production
from extensions.security.production import is_common_password

VHOST = "/"


class DefinitionsError(Exception):
    """The definitions cannot be created; the text says why."""


def build(environ: Mapping[str, str], *, production: bool) -> dict[str, Any]:
    """Return the definitions. Raises DefinitionsError if production would run with a well-known password."""
    plan = topology.Plan()
    topology.declare(plan)
    all_users, passwords = _users_and_passwords(environ)
    weak = weak_users(environ)
    if production and weak:
        raise DefinitionsError(f"ENVIRONMENT is production: give {', '.join(weak)} passwords of their own")
    return {
        "vhosts": [{"name": VHOST}],
        "users": [_login(user, passwords[user.name]) for user in all_users],
        "permissions": [
            {"user": user.name, "vhost": VHOST, "configure": user.configure, "write": user.write, "read": user.read}
            for user in all_users
        ],
        "topic_permissions": [
            {"user": user.name, "vhost": VHOST, "exchange": exchange, "write": write, "read": read}
            for user in all_users
            for exchange, (write, read) in user.topics.items()
        ],
        **_topology(plan),
    }


def weak_users(environ: Mapping[str, str]) -> list[str]:
    """Return the users with a well-known password."""
    passwords = _users_and_passwords(environ)[1]
    return sorted(user for user, password in passwords.items() if is_common_password(user, password))


def _users_and_passwords(environ: Mapping[str, str]) -> tuple[list[User], dict[str, str]]:
    name, password = administrator_of(environ)
    all_users = users(name, topology.retry_delays())
    return all_users, {user.name: password_of(user.name, environ) for user in all_users} | {name: password}


def _login(user: User, password: str) -> dict[str, str]:
    salt = secrets.token_bytes(4)
    digest = hashlib.sha256(salt + password.encode()).digest()  # RabbitMQ supports no stronger format
    return {
        "name": user.name,
        "password_hash": base64.b64encode(salt + digest).decode(),
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": user.tags,
    }


def _topology(plan: topology.Plan) -> dict[str, Any]:
    durable = {"vhost": VHOST, "durable": True, "auto_delete": False}
    return {
        "exchanges": [
            {"name": name, "type": kind, "internal": False, "arguments": {}, **durable}
            for name, kind in plan.exchanges.items()
        ],
        "queues": [{"name": name, "arguments": arguments, **durable} for name, arguments in plan.queues.items()],
        "bindings": [
            {
                "source": exchange,
                "vhost": VHOST,
                "destination": queue,
                "destination_type": "queue",
                "routing_key": routing_key,
                "arguments": {},
            }
            for queue, exchange, routing_key in plan.bindings
        ],
    }


def write(path: Path) -> None:
    """Write the definitions for this environment atomically.

    They contain password hashes. All users can read the file, because the broker's container runs as another user. So
    other users must not have access to the folder: it is a volume of these two containers, or the broker's home.
    """
    settings = load()
    definitions = build(os.environ, production=is_production(settings))
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.write_text(json.dumps(definitions, indent=1))
    unfinished.replace(path)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m deploy.definitions", description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", default=os.environ.get("BROKER_DEFINITIONS_FILE"))
    path = parser.parse_args().file
    if path is None:
        return 0
    try:
        write(Path(path))
    except (DefinitionsError, UnknownEnvironment) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"the broker's definitions are in {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
