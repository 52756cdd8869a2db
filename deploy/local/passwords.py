"""Random passwords for the users of the private servers, in a file that only their owner can read.

The servers listen on the loopback interface, where every user of the machine can connect. A password that is set in the
environment is used instead.
"""

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from contracts.call_permissions import bus_services
from contracts.services import PROCESSES, SERVICES
from deploy.server_users import OPERATOR

FILE = "passwords.json"


def names() -> list[str]:
    """Return the variables of the passwords, as in deploy/server_users.py, and those of the roles of PostgreSQL."""
    return [
        *("RABBITMQ_PASSWORD", "REDIS_PASSWORD"),
        *(f"{user.upper()}_BROKER_PASSWORD" for user in (*bus_services(), OPERATOR)),
        *(f"{service.upper()}_REDIS_PASSWORD" for service in PROCESSES),
        *(f"{role.upper()}_DATABASE_PASSWORD" for one in SERVICES for role in (one, f"{one}_owner")),
    ]


def of(folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return all passwords, by variable. Those that are missing in the file of this folder are made and added to it."""
    path = folder / FILE
    try:
        known = dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):  # none yet, or a file that a crash has cut off
        known = {}
    missing = [name for name in names() if name not in known]
    if missing:
        known |= {name: secrets.token_urlsafe(24) for name in missing}
        _write(path, json.dumps(known, indent=1))
    return {name: environ.get(name) or known[name] for name in names()}


def _write(path: Path, text: str) -> None:
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    unfinished.replace(path)
