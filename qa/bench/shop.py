"""The suite as a yardstick: its real processes, driven over HTTP, and what is measured of them.

Every method that places orders ends with the comparison of all books (deploy/consistency.py); where something does not
add up, or is lost, it raises Unsound, and there is no figure.
"""

import subprocess
import sys
import time
from dataclasses import dataclass, field

from deploy.local.suite import ROOT, SERVICES, Suite
from qa.bench.ground import QUIET, free_port
from qa.bench.orders import order_requests, percentile, place, requests_per_second
from qa.bench.processes import Meter, resident_mib
from qa.support.client import ADMIN, CUSTOMER, log_in

PASSWORD = "Demo-pass-2026!"
PRODUCTS = 10
STOCK = 100_000_000
READY_SECONDS = 90.0
AT_REST_SECONDS = 120.0
LOOKED_AT = 100  # different orders that are read
LOST_SHARE = 0.01  # that may end another way under a load that is too much: cancelled by their deadline


class Unsound(Exception):
    """The books do not add up after a run: none of its figures counts."""


@dataclass
class Shop:
    """One start of the suite on the ground's servers. `memory` is MiB by service, at rest."""

    ground: object
    suite: Suite = None
    address: str = ""
    memory: dict = field(default_factory=dict)
    since: float = 0.0
    product_ids: list = field(default_factory=list)
    more: dict = field(default_factory=dict)  # variables beside those of the ground
    order_ids: list = field(default_factory=list)

    def start(self):
        """Start all services, and make the products of the bench."""
        self.address = f"127.0.0.1:{free_port()}"
        environment = self.ground.environment | {"GATEWAY_ADDRESS": self.address} | self.more
        self.suite = Suite(environment, log_dir=self.ground.folder / "log")
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
        """A fresh access token of the customer; it lives for 15 minutes."""
        client = log_in(f"http://{self.address}", CUSTOMER, PASSWORD)
        client.close()
        return client.token

    def resident(self):
        """Resident memory by service, in MiB."""
        return {service: resident_mib(self.suite.pid(service)) for service in SERVICES}

    def place(self, seconds, *, clients=0, rate=0.0, lost_share=LOST_SHARE):
        """Place orders; returns (what became of them, processor ms an order by process)."""
        headers = {"Authorization": f"Bearer {self.token}"}
        servers = self.ground.servers
        pids = {service: self.suite.pid(service) for service in SERVICES}
        pids |= {"rabbitmq": servers.rabbitmq.pid, "postgres": servers.postgres.pid, "redis": servers.redis.pid}
        with Meter(pids) as meter:
            loaded = place(
                self.address,
                order_requests(self.product_ids, headers),
                self.ground.database_urls,
                seconds,
                clients=clients,
                rate=rate,
            )
        restarted = [service for service in SERVICES if self.suite.pid(service) != pids[service]]
        if restarted:
            raise Unsound(f"restarted while it was measured: {', '.join(restarted)}")
        if loaded.lost > lost_share * len(loaded.accepted) or not loaded.settled:
            raise Unsound(f"{loaded.lost} of {len(loaded.accepted)} orders were not settled; {dict(loaded.refused)}")
        self.order_ids = list(loaded.settled)[:LOOKED_AT]
        return loaded, meter.per_order(len(loaded.settled), **{"load generator": loaded.cpu_seconds})

    def reads(self, seconds, clients, things=("orders", "products")):
        """GETs by an authenticated user: requests a second of single orders, and of single products."""
        ids = {"orders": self.order_ids, "products": self.product_ids}
        headers = {"Authorization": f"Bearer {self.token}"}
        return {
            one: requests_per_second(self.address, [f"/{one}/{each}" for each in ids[one]], seconds, clients, headers)
            for one in things
        }

    def require_sound(self, *, since_ever=False):
        """Compare the books of all services about every order since the start, or since ever. Raises Unsound."""
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.since - 1))
        asked = () if since_ever else ("--since", since)
        self._run("deploy.consistency", "--timeout", str(AT_REST_SECONDS), *asked)

    def _run(self, *module):
        environment = QUIET | self.ground.environment | {"GATEWAY_ADDRESS": self.address}
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
            raise Unsound(f"{module[0]} says:\n{done.stdout}{done.stderr}")


def latencies(loaded):
    """The figures of an open loop, in milliseconds."""
    accept, settle = loaded.accept_seconds, loaded.settle_seconds
    return {
        "accept p50": 1000 * percentile(accept, 0.5),
        "accept p99": 1000 * percentile(accept, 0.99),
        "settle p50": 1000 * percentile(settle, 0.5),
        "settle p99": 1000 * percentile(settle, 0.99),
        "settle p99.9": 1000 * percentile(settle, 0.999),
    }
