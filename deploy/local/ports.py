"""The TCP ports of the private servers and of the gateway."""

import json
import socket
import zlib
from collections.abc import Sequence
from pathlib import Path

# The standard ports plus 15,000, plus 0, 10, 20 ... 990 by clone: below the kernel's range for outgoing connections
# (from 32768), and different for each clone, so that two clones that start at once do not compete for a port.
STANDARD = {"epmd": 4369, "postgres": 5432, "amqp": 5672, "amqp_dist": 5674, "redis": 6379}
OFFSET = 15_000
CLONES = 100
# Metrics: the first port of Prometheus' exporters, moved likewise; ten ports for each service, for as many processes.
METRICS, INSTANCES = 9100, 10
TRIES = 500


def reachable(address: str) -> tuple[str, int]:
    """Return the host and port at which this machine reaches a server that listens on `address` (host:port)."""
    host, _, port = address.rpartition(":")
    return ("127.0.0.1" if host in ("", "0.0.0.0") else host), int(port)


def is_loopback(address: str) -> bool:
    """Return whether a server that listens on `address` (host:port) is reachable from this machine only."""
    host = address.rpartition(":")[0]
    return host == "localhost" or host.startswith("127.")


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Return whether a server can listen on that port now. Connections in TIME_WAIT do not count."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def first_free(start: int, *, host: str = "127.0.0.1", taken: frozenset[int] = frozenset(), step: int = 1) -> int:
    """Return the first free port from `start` on that is not in `taken`. Raises OSError after TRIES occupied ports."""
    for port in range(start, min(start + TRIES * step, 65_536), step):
        if port not in taken and is_free(port, host):
            return port
    raise OSError(f"no free port among the {TRIES} from {start} on; end the programs that use them")


def preferred(root: Path) -> dict[str, int]:
    """Return the preferred ports of the folder `root`, by name; they depend only on its path."""
    return {name: port + OFFSET + _clone(root) * 10 for name, port in STANDARD.items()}


def metrics_addresses(root: Path, services: Sequence[str]) -> dict[str, str]:
    """The ranges of ports that the services' processes serve metrics on, by variable: each takes the first free one."""
    first = METRICS + OFFSET + _clone(root) * INSTANCES * len(services)
    starts = {service: first + number * INSTANCES for number, service in enumerate(services)}
    return {
        f"{name.upper()}_METRICS_ADDRESS": f"127.0.0.1:{start}-{start + INSTANCES - 1}"
        for name, start in starts.items()
    }


def _clone(root: Path) -> int:
    return zlib.crc32(str(root.resolve()).encode()) % CLONES


def choose(root: Path) -> dict[str, int]:
    """Return free ports by name: the previous ones if they are free, otherwise the next ones. Stored in `root`."""
    memory = root / "ports.json"
    wanted = preferred(root)
    try:
        wanted |= {name: int(port) for name, port in json.loads(memory.read_text()).items() if name in wanted}
    except (OSError, ValueError, AttributeError, TypeError):
        pass  # the first start, or a file truncated by a crash: use the preferred ports
    chosen: dict[str, int] = {}
    for name, port in wanted.items():
        chosen[name] = first_free(port, taken=frozenset(chosen.values()))
    memory.write_text(json.dumps(chosen))
    return chosen
