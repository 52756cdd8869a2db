"""Whether the services' memory grows under a steady load: `python -m qa.bench --only memory`.

Orders and reads at fixed rates, and the resident memory of every service every ten seconds. The first half is for
caches, pools and the allocator to fill up; the line through the second half says by how much each grows in an hour.
"""

import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from qa.bench.orders import generate
from qa.bench.processes import slope_per_hour
from qa.bench.shop import Shop

STRETCH_SECONDS = 300.0  # a token lives for fifteen minutes
LEVEL_SAMPLES = 6  # a level is the median of so many
WARM_UP = 5.0
SLOPE = "memory: MiB an hour, "


@dataclass(frozen=True)
class Load:
    """For how many seconds, how many orders and reads a second, and the seconds between two samples."""

    seconds: float = 1800.0
    orders: float = 40.0
    reads: float = 20.0
    every: float = 10.0


class Sampler:
    """Looks at the memory of every service now and then: `with Sampler(shop, every) as sampler: ...`."""

    def __init__(self, shop, every):
        self._shop, self._every = shop, every
        self.samples = {}  # [(seconds since the beginning, MiB), ...] by service
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_around, daemon=True)

    def __enter__(self):
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_error):
        self._over.set()
        self._thread.join()

    def _look_around(self):
        while True:
            at = time.monotonic() - self._began
            for service, mib in self._shop.resident().items():
                self.samples.setdefault(service, []).append((at, mib))
            if self._over.wait(self._every):
                return


def measure(ground, load, say):
    """Return (figures, what was done, with the levels and every sample of each service). Raises Unsound."""
    done = {"seconds": load.seconds, "orders": 0, "reads": 0, "refused": 0}
    done |= {"orders/s": load.orders, "reads/s": load.reads}
    with Shop(ground) as shop:
        shop.place(WARM_UP, rate=load.orders)
        end = time.monotonic() + load.seconds
        with Sampler(shop, load.every) as sampler:
            while (left := end - time.monotonic()) > 1:
                _stretch(shop, min(STRETCH_SECONDS, left), load, done)
                say(f"  {done['orders']} orders, {done['reads']} reads; {max(0.0, end - time.monotonic()):.0f} s left")
        shop.require_sound()
    slopes, done["levels"] = summary(sampler.samples, load.seconds)
    done["samples"] = sampler.samples
    return {f"{SLOPE}{service}": slope for service, slope in slopes.items()}, done


def _stretch(shop, seconds, load, done):
    """Orders by this thread's generator, reads by another one."""
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
    """Return (MiB an hour in the second half, [MiB in the beginning, MiB at the end]), each by service."""
    slopes, levels = {}, {}
    for service, points in samples.items():
        seen = [mib for _, mib in points]
        slopes[service] = slope_per_hour([point for point in points if point[0] >= seconds / 2])
        levels[service] = [statistics.median(seen[:LEVEL_SAMPLES]), statistics.median(seen[-LEVEL_SAMPLES:])]
    return slopes, levels
