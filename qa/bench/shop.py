"""The suite as a candidate: its real processes, measured over HTTP.

A measurement ends with `require_consistent`, the consistency checks of all services (deploy/consistency.py). If a check
fails or an order is lost, Inconsistent is raised, and the figures do not count.
"""

import subprocess
import sys
import time
from dataclasses import dataclass, field

from contracts.services import PROCESSES
from deploy.local.suite import ROOT, Suite
from qa.bench.bench_servers import QUIET
from qa.bench.orders import order_requests, percentile, place, requests_per_second
from qa.bench.process_usage import Meter, resident_mib
from qa.support.client import ADMIN, CUSTOMER, log_in
from qa.support.free_ports import free_address

PASSWORD = "Demo-pass-2026!"
PRODUCTS = 10
STOCK = 100_000_000
READY_SECONDS = 90.0
AT_REST_SECONDS = 120.0
LOOKED_AT = 100  # number of different orders that are read
LOST_SHARE = 0.01  # of the orders may expire under overload


class Inconsistent(Exception):
    """A consistency check failed after a run: its figures do not count."""


@dataclass
class Shop:
    """One start of the suite on the servers of the benchmark. `memory` is MiB by service before the load."""

    bench_servers: object
    suite: Suite = None
    address: str = ""
    memory: dict = field(default_factory=dict)
    since: float = 0.0
    product_ids: list = field(default_factory=list)
    more: dict = field(default_factory=dict)  # further environment variables
    order_ids: list = field(default_factory=list)

    def start(self):
        """Start all services, and create the products."""
        self.address = free_address()
        environment = self.bench_servers.environment | {"GATEWAY_ADDRESS": self.address} | self.more
        self.suite = Suite(environment, log_dir=self.bench_servers.folder / "log")
        self.suite.start()
        self.suite.wait_ready(READY_SECONDS)
        self._run("deploy.seed")
        self.memory = self.resident()
        self.since = time.time()
        self.product_ids = self._make_products()

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_error):
        self.stop()

    def stop(self):
        """Stop all services."""
        if self.suite is not None:
            self.suite.stop()
            self.suite = None

    def _make_products(self):
        admin = log_in(f"http://{self.address}", ADMIN, PASSWORD)
        made = []
        for number in range(PRODUCTS):
            facts = {"sku": f"BENCH-{time.time_ns()}", "name": f"Bench {number}", "price": f"{10 + number}.90"}
            product = admin.must("POST", "/products", facts)
            stock = {"product_id": product["id"], "product_sku": product["sku"], "quantity": STOCK}
            admin.must("POST", "/inventory", stock)
            made.append(product["id"])
        admin.close()
        return made

    @property
    def token(self):
        """A new access token of the customer, valid for 15 minutes."""
        client = log_in(f"http://{self.address}", CUSTOMER, PASSWORD)
        client.close()
        return client.token

    def resident(self):
        """Resident memory by service, in MiB."""
        return {service: resident_mib(self.suite.pid(service)) for service in PROCESSES}

    def place(self, seconds, *, clients=0, rate=0.0, lost_share=LOST_SHARE):
        """Place orders; returns (Loaded, processor ms per order by process). Raises Inconsistent."""
        headers = {"Authorization": f"Bearer {self.token}"}
        servers = self.bench_servers.servers
        pids = {service: self.suite.pid(service) for service in PROCESSES}
        pids |= {"rabbitmq": servers.rabbitmq.pid, "postgres": servers.postgres.pid, "redis": servers.redis.pid}
        with Meter(pids) as meter:
            loaded = place(
                self.address,
                order_requests(self.product_ids, headers),
                self.bench_servers.database_urls,
                seconds,
                clients=clients,
                rate=rate,
            )
        restarted = [service for service in PROCESSES if self.suite.pid(service) != pids[service]]
        if restarted:
            raise Inconsistent(f"restarted during the measurement: {', '.join(restarted)}")
        if loaded.lost > lost_share * len(loaded.accepted) or not loaded.settled:
            raise Inconsistent(
                f"{loaded.lost} of {len(loaded.accepted)} orders were not settled; {dict(loaded.refused)}"
            )
        self.order_ids = list(loaded.settled)[:LOOKED_AT]
        return loaded, meter.per_order(len(loaded.settled), **{"load generator": loaded.cpu_seconds})

    def reads(self, seconds, clients, things=("orders", "products")):
        """Return the rates of authenticated GETs of single orders and of single products, per second."""
        ids = {"orders": self.order_ids, "products": self.product_ids}
        headers = {"Authorization": f"Bearer {self.token}"}
        return {
            one: requests_per_second(self.address, [f"/{one}/{each}" for each in ids[one]], seconds, clients, headers)
            for one in things
        }

    def require_consistent(self, *, all_orders=False):
        """Run the consistency checks over the orders since the start, or over all orders. Raises Inconsistent."""
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.since - 1))
        options = () if all_orders else ("--since", since)
        self._run("deploy.consistency", "--timeout", str(AT_REST_SECONDS), *options)

    def _run(self, *module):
        environment = QUIET | self.bench_servers.environment | {"GATEWAY_ADDRESS": self.address}
        done = subprocess.run(
            [sys.executable, "-m", *module],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        if done.returncode:
            raise Inconsistent(f"{module[0]} failed:\n{done.stdout}{done.stderr}")


def latencies(loaded):
    """Return latency percentiles in milliseconds."""
    accept, settle = loaded.accept_seconds, loaded.settle_seconds
    return {
        "accept p50": 1000 * percentile(accept, 0.5),
        "accept p99": 1000 * percentile(accept, 0.99),
        "settle p50": 1000 * percentile(settle, 0.5),
        "settle p99": 1000 * percentile(settle, 0.99),
        "settle p99.9": 1000 * percentile(settle, 0.999),
    }
