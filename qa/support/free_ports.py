"""Free ports for servers that a test starts at a given address."""

import random

from deploy.local.ports import is_free

# Below the ports of the private servers (deploy/local/ports.py) and the kernel's range for outgoing connections, from
# which another process could get the same port before it is used.
PORTS = range(10_000, 19_000)
TRIES = 100
_random = random.SystemRandom()  # not the seeded one: each worker of a test run must draw other ports


def free_ports(count: int) -> list[int]:
    """Return consecutive ports that are free now. Raises OSError after TRIES tries without success."""
    for _ in range(TRIES):
        first = _random.randrange(PORTS.start, PORTS.stop - count)
        ports = list(range(first, first + count))
        if all(is_free(port) and is_free(port, "0.0.0.0") for port in ports):
            return ports
    raise OSError(f"no {count} consecutive free ports were found in {PORTS}")


def free_address() -> str:
    """Return a loopback address with a port that is free now."""
    return f"127.0.0.1:{free_ports(1)[0]}"
