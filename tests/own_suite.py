"""What a suite of one's own needs beside its servers: keys, and an address for its gateway."""

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from deploy import keys


def free_address() -> str:
    """Return an address on which nobody listens at this moment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def set_up(folder: Path, servers: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a suite on these servers, with keys in `folder`.

    They hold for this process as well, in which migrations and seed run.
    """
    private, public = folder / "keys/jwt-private.pem", folder / "keys/jwt-public.pem"
    keys.ensure(private, public)
    variables = {
        **servers,
        "JWT_PRIVATE_KEY_FILE": str(private),
        "JWT_PUBLIC_KEY_FILE": str(public),
        "GATEWAY_ADDRESS": free_address(),
    }
    os.environ.update(variables)
    return variables
