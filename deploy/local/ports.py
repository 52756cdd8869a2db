"""The TCP ports of the private servers, of the gateway and of the mailbox."""

import json
import socket
import zlib
from collections.abc import Sequence
from pathlib import Path

# Ten ports for each clone, by its path: below the kernel's range for outgoing connections, which begins at 32,768.
NAMES = ("epmd", "postgres", "amqp", "amqp_dist", "redis")
FIRST, BLOCK, CLONES = 20_000, 10, 100
# Metrics: ten ports for each service of each clone, for as many processes.
METRICS, INSTANCES = 24_100, 10
TRIES = 500

_claims: dict[int, tuple[Path, socket.socket]] = {}  # port -> who claimed it, and the socket that shows it to others


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
    first = FIRST + _clone(root) * BLOCK
    return {name: first + number for number, name in enumerate(NAMES)}


def metrics_addresses(root: Path, services: Sequence[str]) -> dict[str, str]:
    """The ranges of ports that the services' processes serve metrics on, by variable: each takes the first free one."""
    first = METRICS + _clone(root) * INSTANCES * len(services)
    starts = {service: first + number * INSTANCES for number, service in enumerate(services)}
    return {
        f"{name.upper()}_METRICS_ADDRESS": f"127.0.0.1:{start}-{start + INSTANCES - 1}"
        for name, start in starts.items()
    }


def _clone(root: Path) -> int:
    return zlib.crc32(str(root.resolve()).encode()) % CLONES


def choose(root: Path) -> dict[str, int]:
    """Return free ports by name: the previous ones if they are free, otherwise the next ones. Stored in `root`.

    They are claimed for `root` until this process ends, so that two suites that start at once choose different ports.
    """
    memory = root / "ports.json"
    wanted = preferred(root)
    try:
        wanted |= {name: int(port) for name, port in json.loads(memory.read_text()).items() if name in wanted}
    except (OSError, ValueError, AttributeError, TypeError):
        pass  # the first start, or a file truncated by a crash: use the preferred ports
    chosen: dict[str, int] = {}
    for name, port in wanted.items():
        chosen[name] = _claim_free(port, root, frozenset(chosen.values()))
    memory.write_text(json.dumps(chosen))
    return chosen


def claim_free(start: int, root: Path, *, host: str = "127.0.0.1") -> int:
    """Claim the first port from `start` on that is free and not claimed. `root` owns the claim. Returns the port."""
    return _claim_free(start, root, frozenset(_claims), host)


def _claim_free(start: int, root: Path, taken: frozenset[int], host: str = "127.0.0.1") -> int:
    while not _claim(free := first_free(start, host=host, taken=taken), root):
        taken |= {free}
    return free


def _claim(port: int, root: Path) -> bool:
    """Claim a port for `root`. Returns False if another suite on this machine has claimed it and may not yet listen."""
    if port in _claims:
        return _claims[port][0] == root
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        claim.bind(f"\0order-suite-port-{port}")  # in the abstract namespace: it ends with the process
    except OSError:
        claim.close()
        return False
    _claims[port] = (root, claim)
    return True
