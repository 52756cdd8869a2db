"""Measures the growth of the services' memory under a steady load: `python -m qa.bench --only memory`.

Orders and reads come at fixed rates, and the resident memory of every service is sampled every ten seconds. In the
first half caches, pools and the allocator fill up; a regression line through the second half gives the growth per hour.
"""

import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from qa.bench.orders import generate
from qa.bench.process_usage import slope_per_hour
from qa.bench.shop import Shop

STRETCH_SECONDS = 300.0  # a token is valid for fifteen minutes
LEVEL_SAMPLES = 6  # a level is the median of so many samples
WARM_UP = 5.0
SLOPE = "memory: MiB an hour, "


@dataclass(frozen=True)
class Load:
    """The duration in seconds, orders and reads per second, and the seconds between two samples."""

    seconds: float = 1800.0
    orders: float = 40.0
    reads: float = 20.0
    every: float = 10.0


class Sampler:
    """Samples the memory of every service: `with Sampler(shop, every) as sampler: ...`."""

    def __init__(self, shop, every):
        self._shop, self._every = shop, every
        self.samples = {}  # [(seconds since the beginning, MiB), ...] by service
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self):
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_error):
        self._over.set()
        self._thread.join()

    def _sample(self):
        while True:
            at = time.monotonic() - self._began
            for service, mib in self._shop.resident().items():
                self.samples.setdefault(service, []).append((at, mib))
            if self._over.wait(self._every):
                return


def measure(bench_servers, load, say):
    """Return (figures, the load with the levels and samples of each service). Raises Inconsistent."""
    done = {"seconds": load.seconds, "orders": 0, "reads": 0, "refused": 0}
    done |= {"orders/s": load.orders, "reads/s": load.reads}
    with Shop(bench_servers) as shop:
        shop.place(WARM_UP, rate=load.orders)
        end = time.monotonic() + load.seconds
        with Sampler(shop, load.every) as sampler:
            while (left := end - time.monotonic()) > 1:
                _stretch(shop, min(STRETCH_SECONDS, left), load, done)
                say(f"  {done['orders']} orders, {done['reads']} reads; {max(0.0, end - time.monotonic()):.0f} s left")
        shop.require_consistent()
    slopes, done["levels"] = summary(sampler.samples, load.seconds)
    done["samples"] = sampler.samples
    return {f"{SLOPE}{service}": slope for service, slope in slopes.items()}, done


def _stretch(shop, seconds, load, done):
    """Place orders with one load generator, and read with another one."""
    headers = {"Authorization": f"Bearer {shop.token}"}
    paths = ["/orders", "/products", "/notifications", *(f"/orders/{one}" for one in shop.order_ids[:7])]
    reads = [{"method": "GET", "path": path, "headers": headers} for path in paths]
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(generate, shop.address, reads, seconds, rate=load.reads)
        loaded, _cpu = shop.place(seconds, rate=load.orders)
    done["orders"] += len(loaded.settled)
    done["reads"] += len(reading.result().accept_seconds)
    done["refused"] += loaded.refused.total() + loaded.not_sent + reading.result().refused.total()


def summary(samples, seconds):
    """Return (MiB per hour in the second half, [MiB at the beginning, MiB at the end]), each by service."""
    slopes, levels = {}, {}
    for service, points in samples.items():
        seen = [mib for _, mib in points]
        slopes[service] = slope_per_hour([point for point in points if point[0] >= seconds / 2])
        levels[service] = [statistics.median(seen[:LEVEL_SAMPLES]), statistics.median(seen[-LEVEL_SAMPLES:])]
    return slopes, levels
