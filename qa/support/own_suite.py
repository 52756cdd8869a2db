"""Settings for a suite that a proof starts for itself: signing keys, and an address for its gateway."""

import os
from collections.abc import Mapping
from pathlib import Path

from deploy import keys
from qa.support.free_ports import free_address


def set_up(folder: Path, servers: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables of a suite on these servers, with keys in `folder`.

    They are also set in this process, which runs the migrations and the seed.
    """
    private, public = folder / "keys/jwt-private.pem", folder / "keys/jwt-public.pem"
    keys.ensure(private, public)
    variables = {
        **servers,
        "JWT_PRIVATE_KEY_FILE": str(private),
        "JWT_PUBLIC_KEY_FILE": str(public),
        "GATEWAY_ADDRESS": free_address(),
        "OUTBOUND_ALLOW_LOOPBACK": "yes",
    }
    os.environ.update(variables)
    return variables
