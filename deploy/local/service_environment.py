"""Which variables of the environment a service gets: what its settings name, its own, and what the system needs.

Everything else stays with the launcher: passwords and addresses of other services, of administrators and of the user's
other programs, and the path of var/env.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from contracts.services import GATEWAY
from extensions.runtime.addresses import database_variable, metrics_variable, redis_variable, uri_variable

SYSTEM = {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD"}
SYSTEM |= {"SSL_CERT_FILE", "SSL_CERT_DIR", "METRICS_ADDRESS"}
PREFIXES = ("LC_", "PYTHON", "EVENTLET_", "MALLOC_", "FAKETIME_")
"""The settings of the C library, Python, eventlet, and of the clock that `make chaos` changes."""
SHARED = ("AMQP_URI", "REDIS_URL")
"""The addresses of a user that all services share. A service with a user of its own does not get them."""
ONLY_FOR = {"JWT_PRIVATE_KEY_FILE": ("users",), "JWT_PUBLIC_KEY_FILE": ("users", GATEWAY)}
ONLY_FOR |= {"SUPERVISOR_URL": (GATEWAY,)}
ONLY_FOR |= dict.fromkeys(("SMTP_USER", "SMTP_PASSWORD"), ("notifications",))
_PLACEHOLDER = re.compile(r"\$\{([A-Z][A-Z0-9_]*)")


def settings(config: Path) -> frozenset[str]:
    """Return the variables that a configuration file names."""
    return frozenset(_PLACEHOLDER.findall(config.read_text()))


def of(service: str, env: Mapping[str, str], config: Path, more: Iterable[str] = ()) -> dict[str, str]:
    """Return the variables of `env` for `service`. `more` names others that it needs, such as those of a test."""
    own = {kind(service) for kind in (uri_variable, database_variable, redis_variable, metrics_variable)}
    allowed = SYSTEM | settings(config) | own | set(more)
    refused = {name for name in SHARED if env.get(f"{service.upper()}_{name}")}
    refused |= {name for name, services in ONLY_FOR.items() if service not in services}
    return {
        name: value
        for name, value in env.items()
        if (name in allowed or name.startswith(PREFIXES)) and name not in refused
    }
