"""Compares two gateways on one port with one gateway: `python -m qa.bench --only gateways`.

The kernel distributes the connections (SO_REUSEPORT). A second process helps only if a core is free, so the idle
processor time of the whole machine, load generator included, is reported with the rates.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from deploy.local.process import wait_until
from deploy.local.suite import Suite
from qa.bench.shop import Shop

CLIENTS = 32
START_SECONDS = 30.0
IDLE, IOWAIT = 3, 4  # of the figures in the first line of /proc/stat
LISTENING = "0A"


@dataclass(frozen=True)
class Lengths:
    """The number of measurements, and the seconds of each."""

    turns: int = 5
    warm_up: float = 2.0
    seconds: float = 10.0


TINY = Lengths(turns=1, warm_up=0.5, seconds=0.5)


class IdleCores:
    """The number of idle cores, on average: `with IdleCores() as idle: ...`, then `idle.cores`."""

    cores = 0.0

    def __enter__(self):
        self._before = self._read_ticks()
        return self

    def __exit__(self, *_error):
        idle, total = (after - before for after, before in zip(self._read_ticks(), self._before, strict=True))
        self.cores = os.cpu_count() * idle / total if total else 0.0

    def _read_ticks(self):
        ticks = [int(one) for one in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
        return ticks[IDLE] + ticks[IOWAIT], sum(ticks)


def measure(bench_servers, lengths):
    """Return the figures of each turn; turns begin alternately with one gateway and with two. Raises Inconsistent."""
    found = []
    with Shop(bench_servers) as shop:
        shop.place(lengths.warm_up, clients=CLIENTS)
        for turn in range(lengths.turns):
            figures = {}
            for name in ("one", "two") if turn % 2 else ("two", "one"):
                with _second_gateway(shop) if name == "two" else contextlib.nullcontext():
                    shop.reads(lengths.warm_up, CLIENTS, ["orders"])
                    with IdleCores() as idle:
                        rate = shop.reads(lengths.seconds, CLIENTS, ["orders"])["orders"]
                figures[f"gateways: GET /orders/{{id}}/s, {name}"] = rate
                figures[f"gateways: cores left idle, {name}"] = idle.cores
            found.append(figures)
        shop.require_consistent()
    return found


@contextlib.contextmanager
def _second_gateway(shop):
    """Run a second gateway process at the same address within the block."""
    port = int(shop.address.rpartition(":")[2])
    second = Suite(shop.suite.env, log_dir=shop.bench_servers.folder / "second/log", services=("gateway",))
    second.start()
    try:
        if not wait_until(lambda: listeners(port) == 2, seconds=START_SECONDS):
            raise RuntimeError(f"the second gateway does not listen: see {second.log('gateway')}")
        yield
    finally:
        second.stop()


def listeners(port):
    """The number of sockets that listen on a port of this machine."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(fields[1].endswith(f":{port:04X}") and fields[3] == LISTENING for fields in lines)
